// The CPU backend in a Chromium with WebGPU off.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { config, head, shapes, writeFolder, writeSparse } from "./models.mjs";
import { serve } from "./server.mjs";
import { launch, native, nativeTokens, packagePage, root, screenshot, whole } from "./support.mjs";

const PATIENCE = 180_000;
/**
 * The native program then has the browser's order of sums. Sines and cosines may still round
 * differently, which long answers can show.
 */
const PLAIN = ["--instructions", "plain"];
const CPU = ["--backend", "cpu", ...PLAIN];
const QUESTION = "Write a poem about love.";

let browser, web, scratch;

before(async () => {
  // Chromium has `navigator.gpu` even then, but no adapter.
  [browser, web] = [await launch(["--disable-gpu"]), await serve()];
  scratch = await mkdtemp(path.join(tmpdir(), "gemma4-wgpu-"));
});

after(async () => {
  await browser?.close();
  web?.server.closeAllConnections();
  web?.server.close();
  await rm(scratch, { recursive: true, force: true });
});

/** A page with storage of its own. */
async function freshPage(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return packagePage(context, web.origin);
}

test("with WebGPU off the page answers as the native CPU and says so", async (t) => {
  const page = await browser.newPage();
  t.after(() => page.close());
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(`${web.origin}/page/`);
  await page.waitForSelector("#send:not([disabled])", { timeout: PATIENCE });
  assert.match(
    await page.textContent("#notice"),
    /^The CPU answers, which is slow: the browser offers no graphics card.*--enable-unsafe-webgpu/,
  );
  assert.equal(await page.isHidden("#problem"), true);
  await page.click("#open-settings");
  await page.fill(`#settings [name="temperature"]`, "0");
  await page.fill(`#settings [name="maxTokens"]`, "32");
  assert.match(await page.textContent("#facts"), /BackendCPU.*WebAssembly SIMD.*Weights on it/);
  await page.click("#settings button[value=close]");
  await page.fill("#prompt", QUESTION);
  await page.click("#send");
  await page.waitForSelector("#log li.assistant:not(.running)", { timeout: PATIENCE });
  const expected = await native(...CPU, "-n", "32", QUESTION);
  assert.equal(await page.textContent("#log li.assistant"), expected.text);
  assert.match(await page.textContent("#figures"), /by CPU · 32 tokens · [\d.]+ tokens\/s/);
  await screenshot(page, "no-webgpu");
  assert.deepEqual(errors, []);
});

test("the demo's tokens are those of the native CPU, and an answer stops", async (t) => {
  const page = await freshPage(t);
  const got = await page.evaluate(async (content) => {
    const g = await gemma.Gemma.load("demo");
    const messages = [{ role: "user", content }];
    const answer = g.chat(messages, { temperature: 0, maxTokens: 48 });
    for await (const _ of answer);
    const stopping = new AbortController();
    const stopped = g.chat(messages, { temperature: 0, signal: stopping.signal });
    let pieces = 0;
    try {
      for await (const _ of stopped) if (++pieces === 3) stopping.abort(new Error("enough"));
    } catch {
      // The signal's reason.
    }
    await g.dispose();
    return { result: answer.result, stopped: stopped.result, info: g.info };
  }, QUESTION);
  const expected = await native(...CPU, "-n", "48", QUESTION);
  assert.deepEqual(got.result.tokens, expected.tokens);
  assert.ok(got.result.decodeRate > 0);
  assert.equal(got.stopped.finishReason, "cancelled");
  assert.ok(got.stopped.tokens.length < 100, `${got.stopped.tokens.length} tokens`);
  assert.equal(got.info.backend, "cpu");
  assert.match(got.info.device, /WebAssembly SIMD/);
  assert.match(got.info.note, /offers no graphics card to WebGPU/);
  assert.equal(got.info.maxBufferBytes, null);
});

test("GGUF files of several formats answer as the native CPU", async (t) => {
  const page = await freshPage(t);
  const split = [1, 2, 3].map((part) => `gemma4_mixed_split/model-0000${part}-of-00003.gguf`);
  // Two and many rows of a prompt take different ways.
  for (const prompt of ["B", "the cat ate the rat and the cat sat"]) {
    for (const files of [["gemma4/model.gguf"], ["gemma4_effective/model.gguf"], split]) {
      const got = await page.evaluate(
        ([urls, prompt]) => answer({ url: urls, cache: false }, prompt),
        [files.map((file) => `${web.origin}/gguf/${file}`), prompt],
      );
      const { result, info } = whole(got);
      assert.equal(info.backend, "cpu");
      const model = path.join(root, "tests/goldens_gguf", files[0]);
      const expected = await nativeTokens(prompt, ...PLAIN, "--model", model);
      assert.deepEqual(result.tokens, expected, files[0]);
    }
  }
});

test("a backend is what was asked for, or an error", async (t) => {
  const page = await freshPage(t);
  const ask = (settings) =>
    page.evaluate((settings) => answer("demo", "To be", settings), settings);
  const onCpu = whole(await ask({ backend: "cpu" }));
  assert.equal(onCpu.info.note, null);
  assert.deepEqual(onCpu.result.tokens, await nativeTokens("To be", ...PLAIN));
  assert.match((await ask({ backend: "webgpu" })).error, /offers no graphics card to WebGPU/);
  assert.match((await ask({ backend: "tpu" })).error, /options: .*tpu/);
});

test("weights beyond 1 GiB are refused with the remedy", async (t) => {
  const sizes = { layers: 1, hidden: 4096, intermediate: 40_000, heads: 1, vocab: 1024 };
  const directory = path.join(scratch, "large");
  await writeFolder(directory, config(sizes));
  const { matrices, vectors } = shapes(config(sizes));
  const header = {};
  let end = 0;
  for (const [name, shape] of Object.entries({ ...matrices, ...vectors })) {
    const bytes = 4 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += bytes)] };
  }
  const beginning = head(header);
  const file = path.join(directory, "model.safetensors");
  await writeSparse(file, { size: beginning.length + end, pieces: [[0, beginning]] });
  const page = await freshPage(t);
  await page.setContent(`<input id="folder" type="file" webkitdirectory />`);
  await page.setInputFiles("#folder", directory);
  const got = await page.evaluate(() =>
    answer(document.getElementById("folder").files, "ab", { quantize: "none", contextLength: 16 }),
  );
  assert.match(got.error, /weights have [\d.]+ GB; a browser's CPU takes at most 1\.07 GB: use/);
});
