// Models from a server: ranges, resumption, checksums, storage, and faulty servers.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { launch, nativeTokens, packagePage, root, whole } from "./support.mjs";
import { serve } from "./server.mjs";

const GGUF = "/gguf/gemma4/model.gguf";
const PROMPT = "B";

let browser, web, expected, bytes, sum;

before(async () => {
  [browser, web] = [await launch(), await serve()];
  const model = path.join(root, "tests/goldens_gguf/gemma4/model.gguf");
  bytes = await readFile(model);
  sum = createHash("sha256").update(bytes).digest("hex");
  expected = await nativeTokens(PROMPT, "--model", model);
});

after(async () => {
  await browser?.close();
  web?.server.closeAllConnections();
  web?.server.close();
});

beforeEach(() => {
  Object.assign(web.faults, { cors: true, ranges: true, cutAfter: Infinity, down: false });
  web.requests.length = 0;
});

async function freshPage(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await packagePage(context, web.origin);
  const load = (source, settings) =>
    page.evaluate(
      ([source, settings, prompt]) => answer(source, prompt, settings),
      [source, settings, PROMPT],
    );
  const cached = () => page.evaluate(() => gemma.cachedModels());
  return { page, context, load, cached };
}

/** Requests for more than the probe's one byte. */
const downloads = () => web.requests.filter(({ range }) => range !== "bytes=0-0");

test("a URL is downloaded once, kept with its checksum, checked and deleted", async (t) => {
  const { page, load, cached } = await freshPage(t);
  const first = whole(await load({ url: GGUF, sha256: sum }));
  assert.deepEqual(first.result.tokens, expected);
  const download = first.progress.filter(({ phase }) => phase === "download").at(-1);
  assert.deepEqual(
    [download.loaded, download.total, download.note],
    [bytes.length, bytes.length, undefined],
  );
  const [entry, ...others] = await cached();
  assert.deepEqual(others, []);
  assert.deepEqual(
    [entry.name, entry.size, entry.stored, entry.sha256],
    ["model.gguf", bytes.length, bytes.length, sum],
  );

  web.requests.length = 0;
  assert.deepEqual(whole(await load(GGUF)).result.tokens, expected);
  assert.deepEqual(downloads(), []);

  assert.equal(await page.evaluate((key) => gemma.verifyCachedModel(key), entry.key), true);
  await page.evaluate(async (key) => {
    const directory = await (
      await navigator.storage.getDirectory()
    ).getDirectoryHandle("gemma4-wgpu");
    const writable = await (
      await directory.getFileHandle(`${key}.data`)
    ).createWritable({ keepExistingData: true });
    await writable.write({ type: "write", position: 4000, data: new Uint8Array([255, 254]) });
    await writable.close();
  }, entry.key);
  assert.equal(await page.evaluate((key) => gemma.verifyCachedModel(key), entry.key), false);
  await page.evaluate((key) => gemma.deleteCachedModel(key), entry.key);
  assert.deepEqual(await cached(), []);
});

test("a download that was cut goes on by itself, and after a failure where it ended", async (t) => {
  const { load, cached } = await freshPage(t);
  web.faults.cutAfter = 200_000;
  assert.deepEqual(whole(await load(GGUF)).result.tokens, expected);
  const ranges = downloads().map(({ range }) => Number(/^bytes=(\d+)-$/.exec(range)[1]));
  assert.ok(ranges.length >= 3 && ranges[0] === 0, `${ranges}`);
  assert.ok(
    ranges.every((from, index) => index === 0 || from > ranges[index - 1]),
    `${ranges}`,
  );
  assert.equal((await cached())[0].sha256, sum);

  const other = await freshPage(t);
  web.requests.length = 0;
  web.faults.cutAfter = 150_000;
  const going = other.load(GGUF);
  while (downloads().length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  web.faults.down = true;
  const failed = await going;
  assert.match(
    failed.error,
    /503 .*\(cut after \d+ of \d+ bytes; loading again goes on from there\)/,
  );
  const [begun] = await other.cached();
  assert.ok(
    begun.stored > 0 && begun.stored < bytes.length && begun.sha256 === undefined,
    JSON.stringify(begun),
  );

  Object.assign(web.faults, { down: false, cutAfter: Infinity });
  web.requests.length = 0;
  assert.deepEqual(whole(await other.load({ url: GGUF, sha256: sum })).result.tokens, expected);
  assert.deepEqual(
    downloads().map(({ range }) => range),
    [`bytes=${begun.stored}-`],
  );
});

test("a download with another checksum is not kept", async (t) => {
  const { load, cached } = await freshPage(t);
  const got = await load({ url: GGUF, sha256: "0".repeat(64) });
  assert.match(got.error, /model\.gguf: wrong SHA-256 after the download/);
  assert.deepEqual(await cached(), []);
});

test("a model beyond the storage's quota is refused before the download", async (t) => {
  const { page, context, load, cached } = await freshPage(t);
  const session = await context.newCDPSession(page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: web.origin, quotaSize: 100_000 });
  const got = await load(GGUF);
  assert.match(
    got.error,
    /model\.gguf needs 0\.5 MB more of .* storage than this page may use: delete cached models/,
  );
  assert.deepEqual(downloads(), []);
  assert.deepEqual(await cached(), []);
  assert.deepEqual(whole(await load({ url: GGUF, cache: false })).result.tokens, expected);
});

/** How a model loads in a worker whose storage is as `full-worker.mjs` says. */
const loadIn = (page, storage) =>
  page.evaluate(
    ([url, storage, prompt]) => {
      const worker = () => new Worker(`/tests/full-worker.mjs?${storage}`, { type: "module" });
      return answer(url, prompt, { worker });
    },
    [GGUF, storage, PROMPT],
  );

test("a storage that takes a part of the bytes gets the rest, until it is full", async (t) => {
  const { page, cached } = await freshPage(t);
  assert.deepEqual(whole(await loadIn(page, "most=100")).result.tokens, expected);
  const [entry] = await cached();
  assert.deepEqual([entry.stored, entry.sha256], [bytes.length, sum]);

  for (const storage of ["room=100000", "entries=0", "entries=1"]) {
    const full = await freshPage(t);
    const got = await loadIn(full.page, storage);
    assert.match(
      got.error ?? "",
      /model\.gguf: the browser's storage is full: delete cached models/,
      storage,
    );
    // Nothing that is not whole counts as that.
    assert.ok((await full.cached()).every(({ sha256 }) => sha256 === undefined));
  }
});

/** Another tab that has a file's lock until `end` is called. */
async function otherTab(context, key, mode) {
  const page = await packagePage(context, web.origin);
  await page.evaluate(
    ([key, mode]) =>
      new Promise((held) => {
        void navigator.locks.request(`gemma4-wgpu/${key}`, { mode }, () => {
          held();
          return new Promise((end) => (window.end = end));
        });
      }),
    [key, mode],
  );
  return { page, end: () => page.evaluate(() => window.end()) };
}

const notesOf = (got) => got.progress.map(({ note }) => note).filter((note) => note !== undefined);

test("a file that another tab loads is neither deleted nor replaced", async (t) => {
  const { page, context, load, cached } = await freshPage(t);
  whole(await load(GGUF));
  const [{ key }] = await cached();
  const reader = await otherTab(context, key, "shared");
  const deleted = await page.evaluate(
    (key) => gemma.deleteCachedModel(key).catch(({ message }) => message),
    key,
  );
  assert.match(deleted, /cannot be deleted while another tab loads it/);
  // Two may read.
  assert.deepEqual(notesOf(whole(await load(GGUF))), []);

  // Another version has come.
  await page.evaluate(async (key) => {
    const directory = await (
      await navigator.storage.getDirectory()
    ).getDirectoryHandle("gemma4-wgpu");
    const handle = await directory.getFileHandle(`${key}.json`);
    const entry = JSON.parse(await (await handle.getFile()).text());
    const writable = await handle.createWritable();
    await writable.write(JSON.stringify({ ...entry, etag: "of yesterday" }));
    await writable.close();
  }, key);
  web.requests.length = 0;
  const going = load(GGUF);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.deepEqual(downloads(), [], "replaced while it was read");
  assert.equal((await cached())[0].etag, "of yesterday");
  await reader.end();
  const got = whole(await going);
  assert.deepEqual(got.result.tokens, expected);
  assert.match(notesOf(got)[0], /waiting for another tab that uses these files/);
  assert.equal(downloads().length, 1);
});

test("a model that two tabs want is downloaded once", async (t) => {
  const { page, context, load } = await freshPage(t);
  const other = await packagePage(context, web.origin);
  const both = [
    load(GGUF),
    other.evaluate(([source, prompt]) => answer(source, prompt), [GGUF, PROMPT]),
  ];
  for (const got of await Promise.all(both)) assert.deepEqual(whole(got).result.tokens, expected);
  assert.equal(downloads().length, 1);
  // Locks end with the load: what is there can go.
  const key = (await page.evaluate(() => gemma.cachedModels()))[0].key;
  await page.evaluate((key) => gemma.deleteCachedModel(key), key);
});

test("without storage a model is read where it lies, and the user is told", async (t) => {
  const { page } = await freshPage(t);
  for (const ranges of [true, false]) {
    web.faults.ranges = ranges;
    const got = await page.evaluate(
      ([url, prompt]) => {
        const worker = () => new Worker("/tests/storageless-worker.mjs", { type: "module" });
        return answer(url, prompt, { worker });
      },
      [GGUF, PROMPT],
    );
    assert.deepEqual(whole(got).result.tokens, expected);
    const notes = got.progress.map(({ note }) => note).filter((note) => note !== undefined);
    assert.match(notes[0], /^not cached: .*no storage/);
  }
});

test("a server without ranges is downloaded from in one piece, and the user is told", async (t) => {
  const { load, cached } = await freshPage(t);
  web.faults.ranges = false;
  const got = whole(await load(GGUF));
  assert.deepEqual(got.result.tokens, expected);
  assert.ok(got.progress.some(({ note }) => /cannot be resumed/.test(note ?? "")));
  assert.equal((await cached())[0].sha256, sum);
});

test("servers that refuse are named, with what they lack", async (t) => {
  const { load } = await freshPage(t);
  const other = `${web.other}${GGUF}`;
  assert.deepEqual(whole(await load(other)).result.tokens, expected);
  web.faults.cors = false;
  assert.match(
    (await load(other)).error,
    /127\.0\.0\.1.*does not let other pages read its files \(CORS\)/,
  );
  assert.match((await load("/gguf/none.gguf")).error, /none\.gguf: the server answered 404/);
  assert.match((await load("http://[")).error, /not a URL/);
  assert.match(
    (await load({ url: ["/tests/server.mjs"] })).error,
    /server\.mjs: neither a \.safetensors nor a \.gguf file/,
  );
});
