// Every kernel in the browser's own compiler, Tint.
// `cargo test --test kernels translation::` writes the kernels.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { create } from "webgpu";
import { compileAll } from "./compile.mjs";
import { serve } from "./server.mjs";
import { launch, target } from "./support.mjs";

let browser, web, kernels;

before(async () => {
  kernels = JSON.parse(await readFile(path.join(target, "tmp/browser-kernels.json"), "utf8"));
  [browser, web] = [await launch(), await serve()];
});

after(async () => {
  await browser?.close();
  web?.server.closeAllConnections();
  web?.server.close();
});

test("Chromium compiles all kernels of its adapter and makes a pipeline of each name", async () => {
  const page = await browser.newPage();
  await page.goto(`${web.origin}/blank`);
  const outcome = await page.evaluate(async () => {
    const { compileAll } = await import("/tests/compile.mjs");
    return compileAll(
      navigator.gpu,
      await (await fetch("/kernels/browser-kernels.json")).json(),
      true,
    );
  });
  assert.deepEqual(outcome.failures, []);
  const wanted = kernels.filter(({ f16 }) => !f16);
  const names = new Set(wanted.map(({ name, subgroups }) => `${name} ${subgroups}`));
  assert.ok(
    wanted.length > 100 && names.size > 15,
    `${wanted.length} kernels of ${names.size} names`,
  );
  assert.equal(outcome.taken, wanted.length);
  assert.equal(outcome.pipelines, names.size);
});

test("Dawn, without an adapter, takes all kernels, those with f16 too", async () => {
  const outcome = await compileAll(create(["backend=null"]), kernels);
  assert.deepEqual(outcome.failures, []);
  assert.equal(outcome.pipelines, kernels.length);
  assert.ok(kernels.some(({ f16 }) => f16) && kernels.some(({ subgroups }) => subgroups));
});
