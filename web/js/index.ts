/**
 * Gemma in the browser.
 *
 *     const g = await Gemma.load("demo", { onProgress });
 *     for await (const text of g.chat([{ role: "user", content: "Hello" }])) show(text);
 */

import { describe } from "./files.js";
import type {
  ChatResult,
  GenerateOptions,
  LoadOptions,
  Message,
  ModelInfo,
  Progress,
  Reply,
  ToolCall,
  UrlSource,
  WorkerSource,
} from "./protocol.js";
import { Link } from "./link.js";

export type {
  ChatResult,
  GenerateOptions,
  LoadOptions,
  Message,
  ModelInfo,
  Progress,
  ToolCall,
  UrlSource,
};
export { type CachedModel, cachedModels, deleteCachedModel } from "./cache.js";

/**
 * What to load: the embedded model (`"demo"`), a URL, all files of a model, or a folder.
 */
export type Source =
  "demo" | URL | string | UrlSource | File | Iterable<File> | FileList | FileSystemDirectoryHandle;

/** How to load it, and who gets the progress. */
export interface LoadSettings extends LoadOptions {
  onProgress?: (progress: Progress) => void;
  /** Ends loading; the promise is then rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Makes the worker from the package's `worker.js`, where a bundler needs own code for that. */
  worker?: () => Worker;
}

export interface ChatSettings extends GenerateOptions {
  /** Ends the answer; its iteration then throws the signal's reason. */
  signal?: AbortSignal;
  /** Gets the model's thoughts, piece by piece. */
  onThought?: (piece: string) => void;
}

/** A loaded model. It lives in a worker of its own. */
export class Gemma {
  private constructor(
    private readonly link: Link,
    /** Facts of the model and its device. */
    readonly info: ModelInfo,
    /** Bytes of the program's own memory after loading. */
    readonly hostBytes: number,
  ) {}

  /**
   * Loads a model.
   *
   * Without WebGPU the CPU computes, unless the settings want it otherwise.
   *
   * Errors: no WebGPU though it is wanted, broken or other files, an unreachable server, too little
   * storage or device memory.
   */
  static async load(source: Source, settings: LoadSettings = {}): Promise<Gemma> {
    const { onProgress, signal, worker, ...options } = settings;
    signal?.throwIfAborted();
    const backend = options.backend ?? "auto";
    const missing = !globalThis.navigator?.gpu;
    if (missing && backend === "webgpu") throw new Error(MISSING + switchedOff());
    if (missing && backend === "auto") options.backend = "cpu";
    const from = await workerSource(source);
    const link = new Link(worker ?? ownWorker);
    const abort = () => link.close(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const loaded = await link.ask({ op: "load", source: from, options }, (reply) => {
        if (reply.type === "progress") onProgress?.(reply.progress);
      });
      if (loaded.type !== "loaded") throw unexpected(loaded);
      const reason = missing && backend === "auto" ? MISSING : loaded.info.note;
      const note = reason === null ? null : reason + switchedOff();
      return new Gemma(link, { ...loaded.info, note }, loaded.hostBytes);
    } catch (error) {
      link.close(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * The answer to a conversation, piece by piece. One answer at a time; leaving the loop stops it.
   *
   * Errors (while iterating): the signal's reason, messages or options that cannot be used, a lost
   * device. After the loss of its device, load the model again.
   */
  chat(messages: Message[], settings: ChatSettings = {}): Answer {
    return new Answer(this.link, messages, settings);
  }

  /** Continues a bare text, without a chat template. */
  complete(prompt: string, settings: ChatSettings = {}): Answer {
    return new Answer(this.link, prompt, settings);
  }

  /** Frees the device and all memory. */
  async dispose(): Promise<void> {
    await this.link.ask({ op: "dispose" }).catch(() => undefined);
    this.link.close(new Error("the model was disposed"));
  }
}

/** An answer: iterate over its text, which has no thoughts. */
export class Answer implements AsyncIterable<string> {
  /** The whole answer with its figures, once it has ended (by itself or by the signal). */
  result?: ChatResult;

  constructor(
    private readonly link: Link,
    private readonly prompt: Message[] | string,
    private readonly settings: ChatSettings,
  ) {}

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void> {
    const { signal, onThought, ...options } = this.settings;
    signal?.throwIfAborted();
    const stop = () => this.link.tell({ op: "stop" });
    const pieces = new Pieces();
    let text = "";
    const answered = this.link.askAlone({ op: "chat", prompt: this.prompt, options }, (reply) => {
      if (reply.type !== "piece") return;
      if (reply.thought !== "") onThought?.(reply.thought);
      if (reply.text !== "") {
        text += reply.text;
        pieces.push(reply.text);
      }
    });
    const ended = answered.then((reply) => {
      if (reply.type !== "answered") throw unexpected(reply);
      this.result = { text, ...reply.result };
    });
    ended.then(
      () => pieces.end(),
      (error: unknown) => pieces.end(error),
    );
    signal?.addEventListener("abort", stop, { once: true });
    let whole = false;
    try {
      yield* pieces;
      whole = true;
    } finally {
      signal?.removeEventListener("abort", stop);
      if (!whole) {
        // The caller left the loop.
        stop();
        await ended.catch(() => undefined);
      }
    }
    signal?.throwIfAborted();
  }
}

/** Text that arrives before it is asked for. */
class Pieces implements AsyncIterable<string> {
  private readonly waiting: string[] = [];
  private ended = false;
  private error: unknown;
  private wake: () => void = () => undefined;

  push(piece: string): void {
    this.waiting.push(piece);
    this.wake();
  }

  end(error?: unknown): void {
    this.ended = true;
    this.error = error;
    this.wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void> {
    for (;;) {
      const piece = this.waiting.shift();
      if (piece !== undefined) yield piece;
      else if (this.ended) break;
      else await new Promise<void>((resolve) => (this.wake = resolve));
    }
    if (this.error !== undefined) throw this.error;
  }
}

/** Whether a cached model's bytes are still those that were downloaded. */
export async function verifyCachedModel(key: string): Promise<boolean> {
  const link = new Link(ownWorker);
  try {
    const reply = await link.ask({ op: "verify", key });
    return reply.type === "verified" && reply.matches;
  } finally {
    link.close(new Error("done"));
  }
}

const MISSING =
  "WebGPU is missing: use a current Chrome, Edge, Safari or Firefox, " +
  "and open the page by https or from localhost";

/** How to switch on WebGPU in browsers that have it switched off. */
function switchedOff(): string {
  const agent = globalThis.navigator?.userAgent ?? "";
  if (!/Linux/.test(agent) || /Android/.test(agent)) return "";
  if (/Firefox\//.test(agent)) {
    const settings = "dom.webgpu.enabled and dom.webgpu.workers.enabled";
    return (
      `; Firefox on Linux has it switched off: set ${settings} to true in about:config ` +
      "and load the page again"
    );
  }
  return (
    "; on Linux it may want the browser to be started with " +
    "--enable-unsafe-webgpu --enable-features=Vulkan"
  );
}

function ownWorker(): Worker {
  return new Worker(new URL("./worker.js", import.meta.url), {
    type: "module",
    name: "gemma4-wgpu",
  });
}

async function workerSource(source: Source): Promise<WorkerSource> {
  if (source === "demo") return { kind: "demo" };
  if (typeof source === "string" || source instanceof URL) return urls({ url: String(source) });
  if (source instanceof File) return { kind: "files", files: [source] };
  if (Symbol.iterator in source) return { kind: "files", files: [...source] };
  if ("url" in source) return urls(source);
  const files: File[] = [];
  try {
    for await (const handle of source.values()) {
      if (handle.kind === "file") files.push(await (handle as FileSystemFileHandle).getFile());
    }
  } catch (error) {
    throw new Error(`the folder cannot be read (${describe(error)})`);
  }
  return { kind: "files", files };
}

function urls({ url, sha256, cache = true }: UrlSource): WorkerSource {
  return { kind: "urls", urls: [url].flat(), sums: [sha256].flat(), cache };
}

function unexpected(reply: Reply): Error {
  return new Error(`the worker answered ${reply.type}`);
}
