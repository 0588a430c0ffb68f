// The messages between callers, the page's side and the worker.

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
  /** The thoughts before `content`; the chat template decides which of them it repeats. */
  reasoning?: string;
  /** The functions that the model called. */
  tool_calls?: ToolCall[];
}

/** A function that the model wants to be called. */
export interface ToolCall {
  type: "function";
  function: { name: string; arguments: Record<string, unknown> };
}

/** How a model is loaded. */
export interface LoadOptions {
  /**
   * What computes. The default (`auto`) is `webgpu`, but `cpu` where the browser has no WebGPU or
   * no adapter. The CPU is slow and takes up to 1 GiB of weights.
   */
  backend?: "auto" | "webgpu" | "cpu";
  /** Positions of the context: prompts and answers. 4096 by default, or the model's maximum. */
  contextLength?: number;
  /**
   * What f32, f16 and bf16 matrices become; quantized ones keep their form. The default (`auto`) is
   * `int4`, but `none` for files that have quantized matrices too.
   */
  quantize?: "auto" | "int4" | "int8" | "none";
  /** Element type of the KV cache; `f16` by default. */
  cacheType?: "f16" | "f32";
  /** Whether kernels use subgroup operations where the browser has them; true by default. */
  subgroups?: boolean;
}

/** How an answer is made. Missing options come from the checkpoint or are Gemma's defaults. */
export interface GenerateOptions {
  /** 0 always takes the most likely token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** Same seed, same answer. */
  seed?: number;
  /** Maximum tokens of the answer; by default all that fit into the context. */
  maxTokens?: number;
  /** Lets a model think first, if it can. Thoughts are never part of the answer's text. */
  thinking?: boolean;
}

/** Facts of a loaded model and its device. Sizes are bytes. */
export interface ModelInfo {
  model: string;
  backend: "webgpu" | "cpu";
  /** Why `auto` chose the CPU, and how to get WebGPU; `null` if it did not. */
  note: string | null;
  /** The graphics card, in the browser's words, or the CPU's threads and instructions. */
  device: string;
  shaderF16: boolean;
  subgroups: boolean;
  /** `null` on the CPU. */
  maxBindingBytes: number | null;
  /** `null` on the CPU. */
  maxBufferBytes: number | null;
  contextLength: number;
  weightBytes: number;
  kvBytes: number;
  /** Maximum of bytes on the device so far. */
  peakBytes: number;
}

/** An answer and its figures. */
export interface ChatResult {
  text: string;
  /** The model's thoughts; `null` without any. */
  reasoning: string | null;
  /** The functions that the model called, in order; an unreadable call is part of `text`. */
  toolCalls: ToolCall[];
  tokens: number[];
  finishReason: "stop" | "length" | "context-full" | "cancelled";
  /** `null` without sampling. */
  seed: number | null;
  promptTokens: number;
  /** Tokens of the prompt that the KV cache already had. */
  cachedTokens: number;
  /** Seconds. */
  timeToFirstToken: number | null;
  /** Tokens per second. */
  prefillRate: number | null;
  decodeRate: number | null;
  /** Maximum of bytes on the device so far. */
  peakBytes: number;
  /** Bytes of the program's own memory. */
  hostBytes: number;
}

/** How far loading has come. */
export interface Progress {
  phase: "download" | "load";
  /** Bytes. */
  loaded: number;
  total: number;
  /** A notice for the user, for example that nothing is cached. */
  note?: string;
}

/** A source with URLs. */
export interface UrlSource {
  /** One .gguf file, its parts, or safetensors with config.json and tokenizer.json. */
  url: string | string[];
  /** The file's SHA-256, if known; with several files, one for each. */
  sha256?: string | string[];
  /** Whether the browser's storage keeps the files; true by default. */
  cache?: boolean;
}

/** Sources as they are handed to the worker. */
export type WorkerSource =
  | { kind: "demo" }
  | { kind: "files"; files: File[] }
  | { kind: "urls"; urls: string[]; sums: (string | undefined)[]; cache: boolean };

export type Request =
  | { op: "load"; source: WorkerSource; options: LoadOptions }
  | { op: "chat"; prompt: Message[] | string; options: GenerateOptions }
  | { op: "stop" }
  | { op: "verify"; key: string }
  | { op: "dispose" };

export type Reply =
  | { type: "progress"; progress: Progress }
  | { type: "piece"; text: string; thought: string }
  | { type: "loaded"; info: ModelInfo; hostBytes: number }
  | { type: "answered"; result: Omit<ChatResult, "text"> }
  | { type: "verified"; matches: boolean }
  | { type: "disposed" }
  | { type: "failed"; message: string };
