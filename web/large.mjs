// Compares tokens and memory of a model that is too large for the tests. It runs from the disk in
// Chromium on SwiftShader, and in the native program on the CPU.
// `npm run large --prefix web -- FILE.gguf`; tools/load_rate/make_checkpoint.py makes the file.

import assert from "node:assert/strict";
import path from "node:path";
import { stat } from "node:fs/promises";
import { launch, native, packagePage, whole } from "./tests/support.mjs";
import { serve } from "./tests/server.mjs";

const [PROMPT, TOKENS] = ["a", 3];
const file = path.resolve(process.env.INIT_CWD ?? ".", process.argv[2] ?? "");
const like = [
  "--backend",
  "cpu",
  "--raw-prompt",
  "--repetition-penalty",
  "1.8",
  "-n",
  String(TOKENS),
  "--ctx",
  "16",
];
const { tokens: expected } = await native(...like, "--model", file, PROMPT);

const [browser, web] = [await launch(), await serve()];
const page = await packagePage(browser, web.origin);
page.setDefaultTimeout(0);
await page.setContent(`<input id="files" type="file" />`);
await page.setInputFiles("#files", file);
const start = performance.now();
const got = await page.evaluate(
  ([prompt, tokens]) =>
    answer(document.getElementById("files").files, prompt, { contextLength: 16 }, tokens),
  [PROMPT, TOKENS],
);
await browser.close();
web.server.closeAllConnections();
web.server.close();
const { result, info, hostBytes } = whole(got);
assert.deepEqual(result.tokens, expected);
console.log(
  `${(await stat(file)).size} bytes on the disk, ` +
    `${((performance.now() - start) / 1000).toFixed(0)} s, ` +
    `tokens ${result.tokens} as natively, ` +
    `${hostBytes} bytes of wasm memory at most\n${JSON.stringify(info)}`,
);
