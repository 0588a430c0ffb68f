// The worker that holds a model: it answers the requests of index.ts, one model a worker.

import { advise, deviceName, prepareDevices, reasonAgainstWebgpu } from "./device.js";
import { type Opened, openUrls, verify } from "./download.js";
import { BlobFile, describe } from "./files.js";
import type { LoadOptions, Reply, Request, WorkerSource } from "./protocol.js";
import init, { Engine } from "./wasm/gemma4_wgpu_web.js";

interface WorkerScope {
  postMessage(message: unknown): void;
  onmessage: ((event: MessageEvent<{ id: number; request: Request }>) => void) | null;
}

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
  const wanted = options.backend ?? "auto";
  const reason = wanted === "cpu" ? null : await reasonAgainstWebgpu();
  if (wanted === "webgpu" && reason !== null) throw new Error(reason);
  const note = wanted === "auto" ? reason : null;
  const backend = wanted === "auto" ? (reason === null ? "webgpu" : "cpu") : wanted;
  await wasm;
  const { files, release } = await open(source, reply);
  try {
    const onProgress = (loaded: number, total: number) =>
      reply({ type: "progress", progress: { phase: "load", loaded, total } });
    const subgroups =
      backend === "webgpu" ? await prepareDevices(options.subgroups !== false) : null;
    const resolved = JSON.stringify({ ...options, backend, subgroups });
    engine = await Engine.load(files, resolved, onProgress, pause);
  } finally {
    // The device has all of the model; the files are no longer needed.
    release();
  }
  const info = { ...JSON.parse(engine.info()), note };
  if (backend === "webgpu") info.device = await deviceName();
  reply({ type: "loaded", info, hostBytes: await hostBytes() });
}

/** Lets this worker handle the messages that wait. */
function pause(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
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
