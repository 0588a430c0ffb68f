// Helpers for the document.

/** The element of this id, of this class. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return found;
}

export const button = (id: string) => element(id, HTMLButtonElement);

/** The message of an error. */
export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Bytes for people. */
export function size(bytes: number): string {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** The user's choices, stored between visits where the browser allows it. */
export const remembered = {
  get(key: string): string | undefined {
    try {
      return localStorage.getItem(key) ?? undefined;
    } catch {
      return undefined;
    }
  },
  set(key: string, value: string): void {
    try {
      localStorage.setItem(key, value);
    } catch {
      // A private window: this visit alone.
    }
  },
};
