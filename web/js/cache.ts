// Models in the browser's own storage (OPFS): `<key>.data` has the bytes, `<key>.json` the entry.

import { describe, gigabytes } from "./files.js";

const DIRECTORY = "gemma4-wgpu";

/** The entry of a file: what is stored beside its bytes. */
export interface CachedModel {
  key: string;
  url: string;
  name: string;
  /** Bytes of the whole file. */
  size: number;
  /** The server's mark of this version, if it sends one. */
  etag?: string;
  /** Of the whole file; missing while the download is not complete. */
  sha256?: string;
  /** Bytes that are stored. */
  stored: number;
}

/** The storage's directory; an error says why there is none. */
export async function storage(): Promise<FileSystemDirectoryHandle> {
  if (!globalThis.navigator?.storage?.getDirectory) {
    throw new Error(
      "this browser or this page's address (neither https nor localhost) offers no storage",
    );
  }
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(DIRECTORY, { create: true });
  } catch (error) {
    throw new Error(`the browser refuses its storage (${describe(error)})`);
  }
}

/** A name for a URL's files. */
export async function keyOf(url: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return [...new Uint8Array(digest).slice(0, 12)]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

/** What is cached, complete or begun. */
export async function cachedModels(): Promise<CachedModel[]> {
  const directory = await storage();
  const found: CachedModel[] = [];
  for await (const name of directory.keys()) {
    if (!name.endsWith(".json")) continue;
    const entry = await readEntry(directory, name.slice(0, -".json".length));
    if (entry) found.push(entry);
  }
  return found.sort((a, b) => a.name.localeCompare(b.name));
}

/** Removes a file from the cache. An error says that another tab is loading it. */
export async function deleteCachedModel(key: string): Promise<void> {
  const directory = await storage();
  const busy = (): never => {
    throw new Error("cannot be deleted while another tab loads it");
  };
  const release = await lock([key], "exclusive", busy);
  try {
    await removeFiles(directory, key);
  } finally {
    release();
  }
}

/** The same for the holder of the file's lock. */
export async function removeFiles(
  directory: FileSystemDirectoryHandle,
  key: string,
): Promise<void> {
  for (const name of [`${key}.data`, `${key}.json`]) {
    await directory.removeEntry(name).catch((error: unknown) => {
      if (!(error instanceof DOMException && error.name === "NotFoundError")) {
        throw new Error(`cannot be deleted while it is in use (${describe(error)})`);
      }
    });
  }
}

/**
 * Locks cached files by their keys and returns the function that unlocks them.
 *
 * Locks are shared for reading and exclusive for writing. `wait` is called if another tab or model
 * has one of them. A browser without locks locks nothing.
 */
export async function lock(keys: string[], mode: LockMode, wait: () => void): Promise<() => void> {
  const held: (() => void)[] = [];
  const release = () => held.forEach((end) => end());
  try {
    // In one order everywhere, against deadlocks.
    for (const key of globalThis.navigator?.locks ? [...new Set(keys)].sort() : []) {
      let end = await takeLock(key, { mode, ifAvailable: true });
      if (!end) {
        wait();
        end = await takeLock(key, { mode });
      }
      if (end) held.push(end);
    }
    return release;
  } catch (error) {
    release();
    throw error;
  }
}

/** The function that unlocks; undefined if the lock is not available. */
function takeLock(key: string, options: LockOptions): Promise<(() => void) | undefined> {
  return new Promise((resolve, reject) => {
    const hold = (lock: Lock | null) => {
      if (lock) return new Promise<void>((end) => resolve(end));
      resolve(undefined);
    };
    navigator.locks.request(`${DIRECTORY}/${key}`, options, hold).catch(reject);
  });
}

/** The entry of a cached file; undefined if it is missing or unreadable. */
export async function readEntry(
  directory: FileSystemDirectoryHandle,
  key: string,
): Promise<CachedModel | undefined> {
  try {
    const file = await (await directory.getFileHandle(`${key}.json`)).getFile();
    const entry = JSON.parse(await file.text()) as CachedModel;
    return { ...entry, key, stored: (await dataFile(directory, key)).size };
  } catch {
    return undefined;
  }
}

/** Replaces the entry of a cached file. */
export async function writeEntry(
  directory: FileSystemDirectoryHandle,
  entry: CachedModel,
): Promise<void> {
  const handle = await directory.getFileHandle(`${entry.key}.json`, { create: true });
  const access = await syncAccess(handle);
  try {
    access.truncate(0);
    writeAll(access, new TextEncoder().encode(JSON.stringify(entry)), 0);
    access.flush();
  } finally {
    access.close();
  }
}

/** Writes all bytes. An error of the name QuotaExceededError says that the storage is full. */
export function writeAll(access: SyncAccess, bytes: Uint8Array, at: number): void {
  for (let done = 0; done < bytes.length;) {
    const count = access.write(bytes.subarray(done), { at: at + done });
    // Chromium gives a wrong count, and no exception, where a private window's storage is full.
    if (!(count > 0 && count <= bytes.length - done))
      throw new DOMException("short write", "QuotaExceededError");
    done += count;
  }
}

/** Bytes from `at` on, as many as the buffer takes or the file still has. */
export function readSome(access: SyncAccess, buffer: Uint8Array, at: number): Uint8Array {
  const count = access.read(buffer, { at });
  if (!(count > 0 && count <= buffer.length)) {
    throw new Error(
      `the browser's storage cannot be read at byte ${at} of ${access.getSize()}: ` +
        "delete the cached model",
    );
  }
  return buffer.subarray(0, count);
}

/** A cached file's bytes. */
export async function dataFile(directory: FileSystemDirectoryHandle, key: string): Promise<File> {
  return (await directory.getFileHandle(`${key}.data`)).getFile();
}

/** Throws unless the storage has room for `bytes` more, by the browser's estimate. */
export async function checkQuota(name: string, bytes: number): Promise<void> {
  const { quota, usage } = await navigator.storage.estimate();
  const free = Math.max(0, (quota ?? Infinity) - (usage ?? 0));
  if (bytes > free) throw noRoom(name, bytes, `, which has ${gigabytes(free)} left for this page`);
}

/** Throws unless an empty file may grow to `bytes`: only exceeding the real quota shows it. */
export function reserve(access: SyncAccess, name: string, bytes: number): void {
  let written: number | undefined;
  try {
    written = access.write(new Uint8Array(1), { at: Math.max(bytes, 1) - 1 });
  } catch {
    // Full.
  }
  access.truncate(0);
  if (written !== 1) throw noRoom(name, bytes, " than this page may use");
}

function noRoom(name: string, bytes: number, limit: string): Error {
  return new Error(
    `${name} needs ${gigabytes(bytes)} more of the browser's storage${limit}: ` +
      "delete cached models or free disk space, " +
      "or load without the cache",
  );
}

/** Exclusive, synchronous access to a file, which workers have. */
export interface SyncAccess {
  getSize(): number;
  read(buffer: Uint8Array, options: { at: number }): number;
  write(buffer: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

/** Opens a file for writing. An error says that another tab has it. */
export async function syncAccess(handle: FileSystemFileHandle): Promise<SyncAccess> {
  const open = (handle as unknown as { createSyncAccessHandle(): Promise<SyncAccess> })
    .createSyncAccessHandle;
  try {
    return await open.call(handle);
  } catch (error) {
    throw new Error(
      `the browser's storage: ${handle.name} is in use by another tab (${describe(error)})`,
    );
  }
}
