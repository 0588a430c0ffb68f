// The package in Chromium: the native program's tokens, sources of all kinds, and faults.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { launch, native, nativeTokens, packagePage, root, whole } from "./support.mjs";
import { serve } from "./server.mjs";

const GGUF = "/gguf/gemma4/model.gguf";
const PROMPT = "B";

let browser, web, expectedGguf;

before(async () => {
  [browser, web] = [await launch(), await serve()];
  const model = path.join(root, "tests/goldens_gguf/gemma4/model.gguf");
  expectedGguf = await nativeTokens(PROMPT, "--model", model);
  assert.ok(new Set(expectedGguf).size > 8, `${expectedGguf}`);
});

after(async () => {
  await browser?.close();
  web?.server.closeAllConnections();
  web?.server.close();
});

/** A page with storage of its own. */
async function freshPage(t, origin = web.origin) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return packagePage(context, origin);
}

test("the demo model answers as the native program, stops and continues", async (t) => {
  const question = "Write a poem about love.";
  const expected = await native("--backend", "cpu", "-n", "32", question);
  const page = await freshPage(t);
  const got = await page.evaluate(async (question) => {
    const progress = [];
    const g = await gemma.Gemma.load("demo", { onProgress: (event) => progress.push(event) });
    const messages = [{ role: "user", content: question }];
    const options = { temperature: 0, maxTokens: 32 };
    const whole = g.chat(messages, options);
    let text = "";
    for await (const piece of whole) text += piece;

    const stopping = new AbortController();
    const stopped = g.chat(messages, { ...options, maxTokens: 900, signal: stopping.signal });
    let [pieces, reason, second] = [0, undefined, undefined];
    try {
      for await (const _ of stopped) {
        if (++pieces === 3) {
          second = await g
            .chat(messages)
            [Symbol.asyncIterator]()
            .next()
            .catch((error) => error.message);
          stopping.abort(new Error("enough"));
        }
      }
    } catch (error) {
      reason = error.message;
    }
    const left = g.chat(messages, { ...options, maxTokens: 900 });
    for await (const _ of left) break;

    const more = [
      ...messages,
      { role: "assistant", content: whole.result.text },
      { role: "user", content: "And?" },
    ];
    const next = g.chat(more, { temperature: 0.8, seed: 7, maxTokens: 4 });
    for await (const _ of next);
    const bad = [];
    for (const wrong of [{ topP: 3 }, { topK: -1 }, { warmth: 1 }]) {
      bad.push(
        await g
          .chat(messages, wrong)
          [Symbol.asyncIterator]()
          .next()
          .catch((error) => error.message),
      );
    }
    const { info, hostBytes } = g;
    await g.dispose();
    const gone = await g
      .chat(messages)
      [Symbol.asyncIterator]()
      .next()
      .catch((error) => error.message);
    const results = [whole, stopped, left, next].map((answer) => answer.result);
    return { results, text, progress, info, hostBytes, reason, second, bad, gone };
  }, question);
  const [all, stopped, left, next] = got.results;
  assert.deepEqual(all.tokens, expected.tokens);
  assert.equal(all.text, expected.text);
  assert.equal(got.text, expected.text);
  assert.equal(all.finishReason, "length");
  assert.ok(all.decodeRate > 0 && all.timeToFirstToken > 0);

  assert.equal(got.reason, "enough");
  assert.match(got.second, /another answer is under way/);
  assert.equal(stopped.finishReason, "cancelled");
  assert.ok(
    stopped.tokens.length >= 3 && stopped.tokens.length < 300,
    `${stopped.tokens.length} tokens`,
  );
  assert.deepEqual(stopped.tokens.slice(0, 3), all.tokens.slice(0, 3));
  assert.equal(left.finishReason, "cancelled");
  assert.ok(left.tokens.length < 300);
  assert.ok(next.cachedTokens >= all.promptTokens - 1, "the conversation's beginning is kept");
  assert.equal(next.seed, 7);

  assert.ok(got.info.weightBytes > 1e6 && got.info.peakBytes > got.info.weightBytes);
  assert.match(got.info.device, /swiftshader/);
  assert.ok(got.hostBytes < 100e6, `${got.hostBytes} bytes of wasm memory`);
  const last = got.progress.at(-1);
  assert.deepEqual([last.phase, last.loaded], ["load", last.total]);
  assert.match(got.bad[0], /top-p/);
  assert.match(got.bad[1], /options/);
  assert.match(got.bad[2], /warmth/);
  assert.match(got.gone, /disposed/);
});

test("a GGUF file, its parts and a folder answer as the native program does", async (t) => {
  const page = await freshPage(t);
  const fromFiles = (paths, prompt) =>
    page.evaluate(
      async ([paths, prompt]) => {
        const files = [];
        for (const path of paths) {
          const blob = await (await fetch(path)).blob();
          files.push(new File([blob], path.split("/").pop()));
        }
        return answer(files, prompt);
      },
      [paths, prompt],
    );
  const gguf = whole(await fromFiles([GGUF], PROMPT));
  assert.deepEqual(gguf.result.tokens, expectedGguf);
  assert.ok(gguf.hostBytes < 200e6, `${gguf.hostBytes} bytes of wasm memory`);

  const split = [1, 2, 3].map((part) => `/gguf/gemma4_mixed_split/model-0000${part}-of-00003.gguf`);
  const model = path.join(root, "tests", split[0].replace("/gguf/", "goldens_gguf/"));
  assert.deepEqual(
    whole(await fromFiles(split, PROMPT)).result.tokens,
    await nativeTokens(PROMPT, "--model", model),
  );

  // Per-layer embeddings, and layers with shared keys.
  const effective = whole(await fromFiles(["/gguf/gemma4_effective/model.gguf"], PROMPT));
  const ofEffective = path.join(root, "tests/goldens_gguf/gemma4_effective/model.gguf");
  assert.deepEqual(effective.result.tokens, await nativeTokens(PROMPT, "--model", ofEffective));

  const names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
  const folder = whole(
    await fromFiles(
      names.map((name) => `/assets/demo/${name}`),
      "To be",
    ),
  );
  assert.deepEqual(folder.result.tokens, await nativeTokens("To be"));
});

test("files that are no model, truncated or too large for their options are named", async (t) => {
  const page = await freshPage(t);
  const bytes = [...(await readFile(path.join(root, "tests/goldens_gguf/gemma4/model.gguf")))];
  const errors = await page.evaluate(async (bytes) => {
    const file = (name, bytes) => new File([new Uint8Array(bytes)], name);
    const attempts = [
      [file("cat.png", [1, 2, 3])],
      [file("cut.gguf", bytes.slice(0, 200_000))],
      [file("head.gguf", bytes.slice(0, 500))],
      [file("empty.gguf", [])],
      [file("model.safetensors", [1, 2, 3])],
      [file("model.gguf", bytes), { contextLength: 1e6 }],
      [file("model.gguf", bytes), { contextLength: 0 }],
      [file("model.gguf", bytes), { quantize: "int2" }],
    ];
    const errors = [];
    for (const [source, settings] of attempts)
      errors.push((await answer(source, "x", settings)).error);
    return errors;
  }, bytes);
  const wanted = [
    /cat\.png: neither a \.safetensors nor a \.gguf file/,
    /cut\.gguf: tensor .* past the end/,
    /head\.gguf: .*ends within its header/,
    /empty\.gguf: the file is empty/,
    /config\.json is missing/,
    /contextLength 1000000 exceeds the model's 4096 positions/,
    /options: /,
    /options: .*int2/,
  ];
  assert.equal(errors.length, wanted.length);
  wanted.forEach((pattern, index) => assert.match(errors[index], pattern));
});

test("a device that is lost rejects the answer and loading, and loading again works", async (t) => {
  const page = await freshPage(t);
  const got = await page.evaluate(async () => {
    const worker = () => new Worker("/tests/losing-worker.mjs", { type: "module" });
    let lose;
    const made = () => {
      const made = worker();
      lose = () => made.postMessage("lose");
      return made;
    };
    const g = await gemma.Gemma.load("demo", { worker: made });
    let [error, pieces] = ["no error", 0];
    try {
      for await (const _ of g.complete("To be", { temperature: 0, maxTokens: 900 }))
        if (++pieces === 2) lose();
    } catch (caught) {
      error = caught.message;
    }
    const later = await g
      .complete("To be")
      [Symbol.asyncIterator]()
      .next()
      .then(
        () => "no error",
        (error) => error.message,
      );
    await g.dispose();
    const again = await answer("demo", "To be", { worker: made });
    return { error, later, pieces, again };
  });
  assert.match(got.error, /^device: lost: .*load the model again$/);
  assert.match(got.later, /^device: lost: /);
  assert.ok(got.pieces < 900);
  assert.equal(whole(got.again).result.tokens.length, 16);
});

test("a worker that cannot be started rejects loading", async (t) => {
  const page = await freshPage(t);
  const got = await page.evaluate(() =>
    answer("demo", "x", {
      worker: () => new Worker("/tests/no-such-file.mjs", { type: "module" }),
    }),
  );
  assert.match(got.error, /the worker failed/);
});

test("a context beyond the device's largest buffer is refused by that limit", async (t) => {
  const page = await freshPage(t);
  const refused = await page.evaluate(() => {
    const worker = () => new Worker("/tests/narrow-worker.mjs?bytes=800000", { type: "module" });
    return answer("demo", "x", { worker });
  });
  assert.match(
    refused.error,
    /^device: .* needs \d+ bytes in one buffer; the adapter allows 800000: .*shorter context/,
  );
});

test("without subgroup operations the answer is the same", async (t) => {
  const page = await freshPage(t);
  const got = whole(await page.evaluate(() => answer("demo", "To be", { subgroups: false }, 4)));
  assert.equal(got.info.subgroups, false);
  assert.deepEqual(got.result.tokens, (await nativeTokens("To be")).slice(0, 4));
});
