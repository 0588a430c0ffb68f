// Files for the wasm side: a name, a size, and any range of bytes.

/** The interface that web/src/files.rs calls. */
export interface ModelFile {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** A file of the user or of the browser's storage, read in ranges. */
export class BlobFile implements ModelFile {
  constructor(
    readonly name: string,
    private readonly blob: Blob,
  ) {}

  get size(): number {
    return this.blob.size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    try {
      return new Uint8Array(await this.blob.slice(offset, offset + length).arrayBuffer());
    } catch (error) {
      throw new Error(`cannot be read any more (${describe(error)}): choose it again`);
    }
  }
}

/** A file on a server, read in ranges. */
export class ServerFile implements ModelFile {
  constructor(
    readonly name: string,
    readonly size: number,
    private readonly url: string,
  ) {}

  async read(offset: number, length: number): Promise<Uint8Array> {
    const headers = { Range: `bytes=${offset}-${offset + length - 1}` };
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await fetch(this.url, { headers, cache: "no-store" });
        if (response.status !== 206)
          throw new Error(`the server answered ${response.status} to a range request`);
        return new Uint8Array(await response.arrayBuffer());
      } catch (error) {
        if (attempt === ATTEMPTS) throw new Error(`${this.url}: ${describe(error)}`);
        await pause(attempt);
      }
    }
  }
}

/** Attempts before a request counts as failed. */
export const ATTEMPTS = 4;

/** Waits longer after each failure. */
export function pause(attempt: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
}

/** The message of an exception, on one line. */
export function describe(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s+/g, " ").trim();
}

/** Bytes for people: 1.2 GB. */
export function gigabytes(bytes: number): string {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
