// What callers, the page's side and the worker tell each other.

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
  /** What the model thought before it wrote `content`; its chat template decides what of it goes back. */
  reasoning?: string;
  /** What the model asked for. */
  tool_calls?: ToolCall[];
}

/** A function that the model wants to be called. */
export interface ToolCall {
  type: "function";
  function: { name: string; arguments: Record<string, unknown> };
}

/** How a model is loaded. */
export interface LoadOptions {
  /** Positions of the context: prompts and answers together. 4096 by default, or what the model has. */
  contextLength?: number;
  /**
   * What f32, f16 and bf16 matrices become; quantized ones keep their form. By default (`auto`) `int4`, but `none`
   * for files that hold quantized matrices too.
   */
  quantize?: "auto" | "int4" | "int8" | "none";
  /** Element type of the KV cache; `f16` by default. */
  cacheType?: "f16" | "f32";
  /** Whether kernels use subgroup operations where the browser has them; true by default. */
  subgroups?: boolean;
}

/** How an answer is made. What is left out comes from the checkpoint, or else is Gemma's default. */
export interface GenerateOptions {
  /** 0 always takes the likeliest token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** Same seed, same answer. */
  seed?: number;
  /** Most tokens of the answer; as many as the context has room for by default. */
  maxTokens?: number;
  /** Lets models that can think before they answer. Thoughts are apart from the answer's text in any case. */
  thinking?: boolean;
}

/** Facts of a loaded model and its device. Sizes are bytes. */
export interface ModelInfo {
  model: string;
  /** The graphics card, as far as the browser tells. */
  device: string;
  shaderF16: boolean;
  subgroups: boolean;
  maxBindingBytes: number;
  maxBufferBytes: number;
  contextLength: number;
  weightBytes: number;
  kvBytes: number;
  /** Most bytes held on the device so far. */
  peakBytes: number;
}

/** An answer and its figures. */
export interface ChatResult {
  text: string;
  /** The model's thoughts; `null` without any. */
  reasoning: string | null;
  /** What the model asked for, in its order; a call that cannot be read is a part of `text`. */
  toolCalls: ToolCall[];
  tokens: number[];
  finishReason: "stop" | "length" | "context-full" | "cancelled";
  /** `null` where the likeliest token was taken. */
  seed: number | null;
  promptTokens: number;
  /** Tokens of the prompt that were known from the answer before. */
  cachedTokens: number;
  /** Seconds. */
  timeToFirstToken: number | null;
  /** Tokens per second. */
  prefillRate: number | null;
  decodeRate: number | null;
  /** Most bytes held on the device so far. */
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
  /** What the user should know: that nothing is cached, say. */
  note?: string;
}

/** Where a URL source's weights come from. */
export interface UrlSource {
  /** One .gguf file, or all files of a model (parts, or safetensors with config.json and tokenizer.json). */
  url: string | string[];
  /** The file's SHA-256, if it is known; with several files, one for each. */
  sha256?: string | string[];
  /** Keep the files in the browser's storage; true by default. */
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
