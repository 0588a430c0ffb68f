// From a URL to files that can be read in ranges, through the browser's storage. A cut download is
// resumed.

import {
  type CachedModel,
  type SyncAccess,
  checkQuota,
  dataFile,
  keyOf,
  lock,
  readEntry,
  readSome,
  removeFiles,
  reserve,
  storage,
  syncAccess,
  writeAll,
  writeEntry,
} from "./cache.js";
import { ATTEMPTS, BlobFile, type ModelFile, ServerFile, describe, pause } from "./files.js";
import type { Progress } from "./protocol.js";
import { Checksum } from "./wasm/gemma4_wgpu_web.js";

/** Bytes that are hashed at once when a download resumes. */
const CHUNK = 8 << 20;

/** A server's description of a file. */
interface Remote {
  url: string;
  name: string;
  /** `undefined` where the server does not send it. */
  size?: number;
  etag?: string;
  /** The SHA-256 that the server or the caller names. */
  sha256?: string;
  /** Whether the server sends ranges. */
  ranges: boolean;
}

type Tell = (progress: Progress) => void;

/** A model's files, and the function that unlocks them for other tabs. */
export interface Opened {
  files: ModelFile[];
  release: () => void;
}

/** The files of a model on a server, ready to be read. `tell` gets the progress. */
export async function openUrls(
  urls: string[],
  sums: (string | undefined)[],
  cache: boolean,
  tell: Tell,
): Promise<Opened> {
  const remotes: Remote[] = [];
  for (const [index, url] of urls.entries()) remotes.push(await probe(url, sums[index]));
  const total = remotes.reduce((sum, remote) => sum + (remote.size ?? 0), 0);
  let directory: FileSystemDirectoryHandle | undefined;
  let note: string | undefined;
  if (cache) {
    try {
      directory = await storage();
    } catch (error) {
      note = `not cached: ${describe(error)}`;
    }
  }
  const wait = () =>
    tell({
      phase: "download",
      loaded: 0,
      total,
      note: "waiting for another tab that uses these files",
    });
  const release = directory ? await lockFor(directory, remotes, wait) : () => undefined;
  const files: ModelFile[] = [];
  let before = 0;
  try {
    for (const remote of remotes) {
      const told = (loaded: number, more?: string) => {
        const all = Math.max(total, before + loaded);
        tell({ phase: "download", loaded: before + loaded, total: all, note: more ?? note });
      };
      files.push(
        directory ? await throughCache(directory, remote, told) : await withoutCache(remote, told),
      );
      before += remote.size ?? 0;
    }
    return { files, release };
  } catch (error) {
    release();
    throw error;
  }
}

/** Shared locks if all files are complete, else exclusive ones. */
async function lockFor(
  directory: FileSystemDirectoryHandle,
  remotes: Remote[],
  wait: () => void,
): Promise<() => void> {
  const keys = await Promise.all(remotes.map((remote) => keyOf(remote.url)));
  const release = await lock(keys, "shared", wait);
  const entries = await Promise.all(keys.map((key) => readEntry(directory, key)));
  if (entries.every((entry, index) => isWhole(entry, remotes[index]!))) return release;
  release();
  return lock(keys, "exclusive", wait);
}

type Told = (loaded: number, note?: string) => void;

/** Requests the file's first byte, which shows its size and whether ranges work. */
async function probe(url: string, sum: string | undefined): Promise<Remote> {
  let parsed: URL;
  try {
    parsed = new URL(url, globalThis.location?.href);
  } catch {
    throw new Error(`${url}: not a URL`);
  }
  const name = decodeURIComponent(parsed.pathname.split("/").pop() ?? "") || "model";
  const response = await request(parsed.href, 0, 0);
  await response.body?.cancel();
  const header = (key: string) => response.headers.get(key) ?? undefined;
  const linked = header("X-Linked-ETag")?.replaceAll('"', "");
  const sha256 = (
    sum ?? (linked && /^[0-9a-f]{64}$/.test(linked) ? linked : undefined)
  )?.toLowerCase();
  const remote = { url: parsed.href, name, etag: header("ETag"), sha256 };
  if (response.status === 200)
    return { ...remote, ranges: false, size: number(header("Content-Length")) };
  // Servers of other origins may hide the header.
  const whole = number(header("Content-Range")?.split("/")[1]) ?? (await sizeByHead(parsed.href));
  return { ...remote, ranges: true, size: whole };
}

async function sizeByHead(url: string): Promise<number | undefined> {
  const response = await fetch(url, { method: "HEAD", cache: "no-store" }).catch(() => undefined);
  return number(response?.headers.get("Content-Length") ?? undefined);
}

function number(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9]+$/.test(text) ? Number(text) : undefined;
}

/** A request for the bytes from `from` on, or for all bytes if that is `undefined`. */
async function request(url: string, from?: number, to?: number): Promise<Response> {
  let response: Response;
  try {
    const headers: HeadersInit = from === undefined ? {} : { Range: `bytes=${from}-${to ?? ""}` };
    // The browser's own cache would split ranges again, and store models a second time.
    response = await fetch(url, { headers, cache: "no-store" });
  } catch (error) {
    throw new Error(
      `${url}: ${describe(error)}: the server cannot be reached, ` +
        "or it does not let other pages read its files (CORS)",
    );
  }
  if (!response.ok) {
    await response.body?.cancel();
    throw new Refusal(
      `${url}: the server answered ${response.status} ${response.statusText}`.trim(),
    );
  }
  return response;
}

/** An answer that a retry would not change. */
class Refusal extends Error {}

async function withoutCache(remote: Remote, told: Told): Promise<ModelFile> {
  if (remote.ranges && remote.size !== undefined) {
    told(0);
    return new ServerFile(remote.name, remote.size, remote.url);
  }
  // The browser stores a blob for this visit alone.
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let blob = new Blob();
  let loaded = 0;
  const response = await request(remote.url);
  for await (const bytes of chunks(response)) {
    parts.push(bytes);
    loaded += bytes.length;
    if (parts.length >= 256) blob = new Blob([blob, ...parts.splice(0)]);
    told(loaded);
  }
  blob = new Blob([blob, ...parts]);
  checkLength(remote, blob.size);
  return new BlobFile(remote.name, blob);
}

async function throughCache(
  directory: FileSystemDirectoryHandle,
  remote: Remote,
  told: Told,
): Promise<ModelFile> {
  const key = await keyOf(remote.url);
  const entry = await readEntry(directory, key);
  if (isWhole(entry, remote)) {
    told(entry.size);
    return new BlobFile(remote.name, await dataFile(directory, key));
  }
  const same = entry !== undefined && isSame(entry, remote);
  if (!same) await removeFiles(directory, key);
  const size = remote.size ?? 0;
  await checkQuota(remote.name, size - (same ? entry.stored : 0));
  const begun: CachedModel = {
    key,
    url: remote.url,
    name: remote.name,
    size,
    etag: remote.etag,
    stored: 0,
  };
  const handle = await directory.getFileHandle(`${key}.data`, { create: true });
  const access = await syncAccess(handle);
  let sha256: string;
  let bytes: number;
  try {
    // The entry is missing while the file is long but empty.
    if (!same) reserve(access, remote.name, size);
    await writeEntry(directory, begun);
    sha256 = await fill(access, remote, told);
    bytes = access.getSize();
  } catch (error) {
    throw explained(error, remote);
  } finally {
    access.flush();
    access.close();
  }
  if (remote.sha256 !== undefined && remote.sha256 !== sha256) {
    await removeFiles(directory, key);
    throw new Error(
      `${remote.name}: wrong SHA-256 after the download (${sha256}, not ${remote.sha256}): ` +
        "nothing was kept",
    );
  }
  await writeEntry(directory, { ...begun, size: bytes, sha256 }).catch((error: unknown) => {
    throw explained(error, remote);
  });
  return new BlobFile(remote.name, await handle.getFile());
}

/** The error, with the remedy where the storage is full. */
function explained(error: unknown, remote: Remote): unknown {
  const isFull = error instanceof DOMException && error.name === "QuotaExceededError";
  const advice = "the browser's storage is full: delete cached models or free disk space";
  return isFull ? new Error(`${remote.name}: ${advice}`) : error;
}

/** Whether a cached file is complete and the server's current version. */
function isWhole(
  entry: CachedModel | undefined,
  remote: Remote,
): entry is CachedModel & { sha256: string } {
  return (
    entry !== undefined &&
    isSame(entry, remote) &&
    entry.sha256 !== undefined &&
    entry.stored === entry.size
  );
}

/** Whether a cached file is of the server's current version. */
function isSame(entry: CachedModel, remote: Remote): boolean {
  const tag = entry.etag === undefined || remote.etag === undefined || entry.etag === remote.etag;
  const sum =
    entry.sha256 === undefined || remote.sha256 === undefined || entry.sha256 === remote.sha256;
  return (
    tag &&
    sum &&
    (remote.size === undefined || entry.size === remote.size) &&
    entry.stored <= entry.size
  );
}

/** Writes the missing part of the file and returns the checksum of the whole. */
async function fill(access: SyncAccess, remote: Remote, told: Told): Promise<string> {
  if (!remote.ranges) access.truncate(0);
  const checksum = hashOf(access);
  for (let attempt = 1; ; attempt++) {
    const from = access.getSize();
    if (from === remote.size) return checksum.hex();
    try {
      const response = await request(remote.url, remote.ranges ? from : undefined);
      if (remote.ranges && response.status !== 206)
        throw new Refusal(`${remote.url}: the server ignores ranges`);
      let at = from;
      for await (const bytes of chunks(response)) {
        writeAll(access, bytes, at);
        checksum.update(bytes);
        at += bytes.length;
        told(
          at,
          remote.ranges ? undefined : "the server sends no ranges: this download cannot be resumed",
        );
      }
      checkLength(remote, at);
      return checksum.hex();
    } catch (error) {
      // Progress resets the retries.
      if (access.getSize() > from) attempt = 1;
      const final =
        error instanceof Refusal ||
        (error instanceof DOMException && error.name === "QuotaExceededError");
      if (final || attempt >= ATTEMPTS || !remote.ranges) {
        const stored = access.getSize();
        if (error instanceof DOMException || stored === 0) throw error;
        const resume = remote.ranges ? "; loading again goes on from there" : "";
        throw new Error(
          `${describe(error)} (cut after ${stored} of ${remote.size ?? "?"} bytes${resume})`,
        );
      }
      await pause(attempt);
    }
  }
}

/** The checksum of the bytes so far. */
function hashOf(access: SyncAccess): Checksum {
  const checksum = new Checksum();
  const buffer = new Uint8Array(CHUNK);
  for (let at = 0; at < access.getSize();) {
    const bytes = readSome(access, buffer, at);
    checksum.update(bytes);
    at += bytes.length;
  }
  return checksum;
}

/** Whether a cached file's bytes still have the checksum of its entry. */
export async function verify(key: string): Promise<boolean> {
  const directory = await storage();
  const release = await lock([key], "shared", () => undefined);
  try {
    const entry = await readEntry(directory, key);
    if (entry?.sha256 === undefined) return false;
    const access = await syncAccess(await directory.getFileHandle(`${key}.data`));
    try {
      return hashOf(access).hex() === entry.sha256;
    } finally {
      access.close();
    }
  } finally {
    release();
  }
}

function checkLength(remote: Remote, bytes: number): void {
  if (remote.size !== undefined && bytes !== remote.size) {
    throw new Error(`${remote.name}: ${bytes} bytes came of ${remote.size}`);
  }
}

async function* chunks(response: Response): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    // Ends the transfer if the caller stops early.
    await reader.cancel().catch(() => undefined);
  }
}
