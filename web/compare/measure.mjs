// Compares the demo model with one of its sizes in transformers.js, by WebGPU and WebAssembly, in
// one Chromium. Rounds alternate, so that other work disturbs all equally. See README.md.

import { readFile } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { launch, root } from "../tests/support.mjs";

const [TOKENS, ROUNDS] = [Number(process.env.TOKENS ?? 64), Number(process.env.ROUNDS ?? 5)];
const here = path.dirname(fileURLToPath(import.meta.url));

const PLACES = {
  "/package/": path.join(root, "web/dist/package"),
  "/transformers/": path.join(here, "node_modules/@huggingface/transformers/dist"),
  "/onnxruntime/": path.join(here, "node_modules/onnxruntime-web/dist"),
  "/models/demo-size/": path.join(here, "model"),
};
const SCRIPT = "text/javascript";
const TYPES = {
  ".js": SCRIPT,
  ".mjs": SCRIPT,
  ".wasm": "application/wasm",
  ".json": "application/json",
};

const server = http.createServer(async (request, response) => {
  // Threads of WebAssembly need an isolated page.
  response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
  response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
  const { pathname } = new URL(request.url, "http://localhost");
  const prefix = Object.keys(PLACES).find((prefix) => pathname.startsWith(prefix));
  const file = prefix && path.join(PLACES[prefix], pathname.slice(prefix.length));
  const body =
    file && !pathname.includes("..") ? await readFile(file).catch(() => undefined) : undefined;
  response.statusCode = body || pathname === "/" ? 200 : 404;
  response.setHeader("Content-Type", TYPES[path.extname(pathname)] ?? "text/html");
  response.end(body ?? "");
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const browser = await launch();
const page = await browser.newPage();
page.on("pageerror", (error) => console.error(error.message));
await page.goto(`http://localhost:${server.address().port}/`);

/**
 * Defines `ours` and `theirs`, which load a model. Each returns a function that makes a number of
 * tokens and returns their rate after the first.
 */
await page.evaluate(() => {
  window.ours = async () => {
    const { Gemma } = await import("/package/index.js");
    const model = await Gemma.load("demo");
    return async (maxTokens) => {
      const answer = model.chat([{ role: "user", content: "Write a poem about love." }], {
        temperature: 0,
        maxTokens,
      });
      for await (const _ of answer);
      return answer.result.decodeRate;
    };
  };
  window.theirs = async (device) => {
    const { AutoModelForCausalLM, BaseStreamer, Tensor, env } =
      await import("/transformers/transformers.min.js");
    Object.assign(env, {
      allowRemoteModels: false,
      allowLocalModels: true,
      localModelPath: "/models/",
      useBrowserCache: false,
    });
    env.backends.onnx.wasm.wasmPaths = "/onnxruntime/";
    env.backends.onnx.wasm.numThreads = navigator.hardwareConcurrency;
    const model = await AutoModelForCausalLM.from_pretrained("demo-size", { device, dtype: "q4" });
    const prompt = Array.from({ length: 20 }, (_, index) => BigInt(index === 0 ? 2 : 100 + index));
    const inputs = {
      input_ids: new Tensor("int64", BigInt64Array.from(prompt), [1, prompt.length]),
      attention_mask: new Tensor("int64", new BigInt64Array(prompt.length).fill(1n), [
        1,
        prompt.length,
      ]),
    };
    class Clock extends BaseStreamer {
      times = [];
      put() {
        this.times.push(performance.now());
      }
      end() {}
    }
    return async (tokens) => {
      const streamer = new Clock();
      const length = { max_new_tokens: tokens, min_new_tokens: tokens };
      await model.generate({ ...inputs, ...length, do_sample: false, streamer });
      // The first call has the prompt itself.
      const times = streamer.times.slice(-tokens);
      return ((times.length - 1) / (times.at(-1) - times[0])) * 1000;
    };
  };
});

const RUNNERS = {
  "gemma4-wgpu, WebGPU": "ours()",
  "transformers.js, WebGPU": `theirs("webgpu")`,
  "transformers.js, wasm": `theirs("wasm")`,
};
const rates = {};
for (const [index, [name, runner]] of Object.entries(RUNNERS).entries()) {
  // The first answer includes compilation.
  await page.evaluate(`${runner}.then((run) => (window.run${index} = run)(4))`);
  rates[name] = [];
}
for (let round = 0; round < ROUNDS; round++) {
  for (const [index, name] of Object.keys(RUNNERS).entries()) {
    rates[name].push(await page.evaluate(`run${index}(${TOKENS})`));
  }
}
await browser.close();
server.closeAllConnections();
server.close();
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
for (const [name, values] of Object.entries(rates)) {
  const all = values.map((value) => value.toFixed(1)).join(" ");
  console.log(`${name}: ${median(values).toFixed(1)} tokens/s (${all})`);
}
