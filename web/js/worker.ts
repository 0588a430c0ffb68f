// The worker that holds a model: it answers the requests of index.ts, one model a worker.

import { advise, deviceName, prepareDevices } from "./device.js";
import { type Opened, openUrls, verify } from "./download.js";
import { BlobFile, describe } from "./files.js";
import type { LoadOptions, Reply, Request, WorkerSource } from "./protocol.js";
import init, { Engine } from "./wasm/gemma4_wgpu_web.js";

interface WorkerScope {
  postMessage(message: unknown): void;
  onmessage: ((event: MessageEvent<{ id: number; request: Request }>) => void) | null;
}

const WORKERS_LACK_IT =
  "WebGPU is missing in this browser's workers: a newer version may have it " +
  "(Firefox: dom.webgpu.workers.enabled in about:config)";

const scope = globalThis as unknown as WorkerScope;
const wasm = init();
let engine: Engine | undefined;
/** The answer under way. */
let answering: Promise<unknown> = Promise.resolve();

scope.onmessage = ({ data: { id, request } }) => {
  const reply = (message: Reply) => scope.postMessage({ id, reply: message });
  void answer(request, reply).catch(async (error: unknown) => {
    const message = describe(error);
    // A failed load frees its device itself.
    reply({ type: "failed", message: request.op === "chat" ? await advise(message) : message });
  });
};

async function answer(request: Request, reply: (message: Reply) => void): Promise<void> {
  switch (request.op) {
    case "load":
      return load(request.source, request.options, reply);
    case "chat": {
      if (!engine) throw new Error("no model is loaded");
      const onPiece = (text: string, thought: string) => reply({ type: "piece", text, thought });
      const answered = engine.chat(
        JSON.stringify(request.prompt),
        JSON.stringify(request.options),
        onPiece,
      );
      answering = answered.catch(() => undefined);
      return reply({
        type: "answered",
        result: { ...JSON.parse(await answered), hostBytes: await hostBytes() },
      });
    }
    case "stop":
      return engine?.stop();
    case "verify":
      await wasm;
      return reply({ type: "verified", matches: await verify(request.key) });
    case "dispose":
      engine?.stop();
      await answering;
      engine?.free();
      engine = undefined;
      return reply({ type: "disposed" });
  }
}

async function load(
  source: WorkerSource,
  options: LoadOptions,
  reply: (message: Reply) => void,
): Promise<void> {
  if (!navigator.gpu) throw new Error(WORKERS_LACK_IT);
  await wasm;
  const { files, release } = await open(source, reply);
  try {
    const onProgress = (loaded: number, total: number) =>
      reply({ type: "progress", progress: { phase: "load", loaded, total } });
    const subgroups = await prepareDevices(options.subgroups !== false);
    engine = await Engine.load(files, JSON.stringify({ ...options, subgroups }), onProgress);
  } finally {
    // The device has all of the model; the files are no longer needed.
    release();
  }
  const info = { ...JSON.parse(engine.info()), device: await deviceName() };
  reply({ type: "loaded", info, hostBytes: await hostBytes() });
}

async function open(source: WorkerSource, reply: (message: Reply) => void): Promise<Opened> {
  const release = () => undefined;
  switch (source.kind) {
    case "demo":
      return { files: [], release };
    case "files":
      return { files: source.files.map((file) => new BlobFile(file.name, file)), release };
    case "urls":
      return openUrls(source.urls, source.sums, source.cache, (progress) =>
        reply({ type: "progress", progress }),
      );
  }
}

/** Bytes of the program's memory, which never shrinks. */
async function hostBytes(): Promise<number> {
  return (await wasm).memory.buffer.byteLength;
}
