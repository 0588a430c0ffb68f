// Models that are split, long, or of other programs answer in Chromium like the native program.

import assert from "node:assert/strict";
import { copyFile, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import {
  config,
  lettersTokenizer,
  longGguf,
  writeFolder,
  writeRandom,
  writeSparse,
} from "./models.mjs";
import { serve } from "./server.mjs";
import { launch, nativeTokens, packagePage, root, whole } from "./support.mjs";

const GGUF = path.join(root, "tests/goldens_gguf/gemma4/model.gguf");

let browser, web, scratch;

before(async () => {
  [browser, web] = [await launch(), await serve()];
  scratch = await mkdtemp(path.join(tmpdir(), "gemma4-wgpu-"));
});

after(async () => {
  await browser?.close();
  web?.server.closeAllConnections();
  web?.server.close();
  await rm(scratch, { recursive: true, force: true });
});

/** A page with storage of its own, and an input to choose files or a folder with. */
async function freshPage(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await packagePage(context, web.origin);
  await page.setContent(
    `<input id="files" type="file" multiple /><input id="folder" type="file" webkitdirectory />`,
  );
  return page;
}

/** The continuation of a text by the model in an input's files. */
const chosen = (page, input, prompt, settings, maxTokens) =>
  page.evaluate(
    ([input, prompt, settings, maxTokens]) =>
      answer(document.getElementById(input).files, prompt, settings, maxTokens),
    [input, prompt, settings, maxTokens],
  );

test("matrices beyond the device's largest binding are split without a difference", async (t) => {
  const sizes = { layers: 2, hidden: 512, intermediate: 2048, heads: 1, vocab: 1024 };
  const directory = await writeRandom(path.join(scratch, "wide"), config(sizes));
  const expected = (await nativeTokens("ab", "--model", directory)).slice(0, 8);
  assert.ok(new Set(expected).size > 4, `${expected}`);
  const page = await freshPage(t);
  await page.setInputFiles("#folder", directory);
  const got = await page.evaluate(async () => {
    const labels = [];
    const channel = new BroadcastChannel("buffers");
    channel.onmessage = ({ data }) => labels.push(data);
    const worker = () => new Worker("/tests/narrow-worker.mjs?bytes=280000", { type: "module" });
    const files = document.getElementById("folder").files;
    return { ...(await answer(files, "ab", { worker, contextLength: 16 }, 8)), labels };
  });
  assert.deepEqual(whole(got).result.tokens, expected);
  assert.equal(got.info.maxBindingBytes, 280_000);
  // Data and scales of each part; the device refuses larger ones.
  const buffers = (label) => got.labels.filter((other) => other === label).length;
  assert.equal(buffers("embed_tokens.weight"), 4);
  for (const matrix of ["gate_proj", "up_proj", "down_proj"])
    assert.equal(buffers(`layers.1.mlp.${matrix}.weight`), 4);
  // q, k and v, which fit together, are one from the beginning.
  assert.equal(buffers("layers.1.self_attn.q_proj.weight"), 2);
  assert.equal(buffers("layers.1.self_attn.k_proj.weight"), 0);
});

test("a model without a chat template completes texts and says why it does not chat", async (t) => {
  const sizes = { layers: 1, hidden: 64, intermediate: 128, heads: 1, vocab: 32 };
  const directory = await writeRandom(path.join(scratch, "base"), config(sizes));
  await writeFile(path.join(directory, "tokenizer.json"), lettersTokenizer(false));
  const page = await freshPage(t);
  await page.setInputFiles("#folder", directory);
  const got = await page.evaluate(async () => {
    const model = await gemma.Gemma.load(document.getElementById("folder").files);
    const all = async (answer) => {
      for await (const _ of answer);
      return answer.result.tokens.length;
    };
    const settings = { temperature: 0, maxTokens: 3 };
    const completed = await all(model.complete("ab", settings));
    const chat = await all(model.chat([{ role: "user", content: "ab" }], settings)).catch(
      (error) => error.message,
    );
    await model.dispose();
    return { completed, chat };
  });
  assert.ok(got.completed > 0);
  assert.match(got.chat, /chat template: .* no turn tokens; it only completes texts/);
});

for (const form of ["mlx", "compressed_tensors", "compressed_tensors_asymmetric", "torchao"]) {
  test(`a folder of ${form} from the disk answers as the native program does`, async (t) => {
    const [from, directory] = [
      path.join(root, "tests/fixtures/import", form),
      path.join(scratch, form),
    ];
    await writeFolder(directory, {});
    for (const name of ["config.json", "model.safetensors"])
      await copyFile(path.join(from, name), path.join(directory, name));
    const expected = await nativeTokens("q", "--model", directory);
    assert.ok(new Set(expected).size > 4, `${expected}`);
    const page = await freshPage(t);
    await page.setInputFiles("#folder", directory);
    assert.deepEqual(whole(await chosen(page, "folder", "q")).result.tokens, expected);
  });
}

test("weights beyond 4 GB of a file on a server or the disk load in little memory", async (t) => {
  const [expected, long] = [await nativeTokens("B", "--model", GGUF), await longGguf(GGUF)];
  assert.ok(long.moved.includes("output_norm.weight") || long.moved.length > 20, `${long.moved}`);
  const page = await freshPage(t);
  web.sparse.set("/sparse/model.gguf", long);
  const url = { url: "/sparse/model.gguf", cache: false };
  const fromServer = whole(await page.evaluate((url) => answer(url, "B"), url));
  assert.deepEqual(fromServer.result.tokens, expected);
  const ranges = web.requests.map(({ range }) =>
    /^bytes=(\d+)-(\d+)$/.exec(range).slice(1).map(Number),
  );
  const beyond = ranges.filter(([from]) => from > 2 ** 32);
  assert.ok(
    beyond.length >= long.moved.length,
    `${beyond.length} reads for ${long.moved.length} tensors`,
  );
  const read = ranges.reduce((sum, [from, to]) => sum + to + 1 - from, 0);
  assert.ok(read < 8e6, `${read} bytes were read`);

  const file = path.join(scratch, "long.gguf");
  await writeSparse(file, long);
  assert.equal((await stat(file)).size, long.size);
  await page.setInputFiles("#files", file);
  const fromDisk = whole(await chosen(page, "files", "B"));
  assert.deepEqual(fromDisk.result.tokens, expected);
  for (const { hostBytes } of [fromServer, fromDisk])
    assert.ok(hostBytes < 200e6, `${hostBytes} bytes of wasm memory`);
});

test("a file of more than 4 GB beyond the storage is refused before the download", async (t) => {
  web.sparse.set("/sparse/large.gguf", await longGguf(GGUF));
  const page = await freshPage(t);
  const session = await page.context().newCDPSession(page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: web.origin, quotaSize: 5e9 });
  web.requests.length = 0;
  const got = await page.evaluate(() => answer("/sparse/large.gguf", "B"));
  assert.match(got.error, /large\.gguf needs 5\.4 GB more of the browser's storage/);
  assert.deepEqual(
    web.requests.map(({ range }) => range),
    ["bytes=0-0"],
  );
  assert.deepEqual(await page.evaluate(() => gemma.cachedModels()), []);
});
