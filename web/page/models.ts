// Choosing and loading a model: the demo, files, folders, URLs, and cached models.

import {
  type CachedModel,
  Gemma,
  type Progress,
  type Source,
  cachedModels,
  deleteCachedModel,
  verifyCachedModel,
} from "gemma4-wgpu";
import { button, element, message, size } from "./dom.js";

const dialog = element("models", HTMLDialogElement);
const loading = element("loading", HTMLElement);
const bar = element("loading-bar", HTMLProgressElement);
const list = element("cached", HTMLUListElement);

export interface Hears {
  /** The loaded model; undefined while one loads or after a failure. */
  model(model: Gemma | undefined): void;
  problem(text: string): void;
}

export class Models {
  private current?: Gemma;
  private running?: AbortController;

  constructor(private readonly hears: Hears) {
    button("open-models").addEventListener("click", () => {
      dialog.showModal();
      void this.showCached();
    });
    button("load-demo").addEventListener("click", () => void this.load("demo", "the demo model"));
    button("cancel-loading").addEventListener("click", () => this.running?.abort());
    button("load-url").addEventListener("click", () => this.loadUrls());
    for (const [opener, input] of [
      ["pick-files", element("files", HTMLInputElement)],
      ["pick-folder", element("folder", HTMLInputElement)],
    ] as const) {
      button(opener).addEventListener("click", () => input.click());
      input.addEventListener("change", () => {
        this.loadFiles([...(input.files ?? [])]);
        input.value = "";
      });
    }
    this.acceptDrops();
  }

  /** Loads a model in place of the present one. */
  async load(source: Source, name: string): Promise<void> {
    dialog.close();
    this.running?.abort();
    const running = (this.running = new AbortController());
    this.hears.model(undefined);
    await this.current?.dispose();
    this.current = undefined;
    if (running.signal.aborted) return;
    showProgress(name);
    const context = element("context", HTMLInputElement).valueAsNumber;
    try {
      this.current = await Gemma.load(source, {
        contextLength: Number.isFinite(context) ? context : undefined,
        signal: running.signal,
        onProgress: (progress) => showProgress(name, progress),
      });
      this.hears.model(this.current);
    } catch (error) {
      if (!running.signal.aborted) this.hears.problem(message(error));
    } finally {
      if (this.running === running) loading.hidden = true;
    }
  }

  private loadFiles(files: File[]): void {
    // A folder's own files: those of folders within belong to other models.
    const own = files.filter((file) => file.webkitRelativePath.split("/").length <= 2);
    const [first] = own;
    if (first) void this.load(own, own.length === 1 ? first.name : `${own.length} files`);
  }

  private loadUrls(): void {
    const urls = element("url", HTMLTextAreaElement)
      .value.split(/\s+/)
      .filter((url) => url !== "");
    const sum = element("sum", HTMLInputElement).value.trim();
    if (urls.length === 0) return;
    if (sum !== "" && urls.length > 1) {
      dialog.close();
      return this.hears.problem("a checksum can be given for a single URL only");
    }
    void this.load({ url: urls, sha256: sum === "" ? undefined : sum }, urls[0] ?? "");
  }

  private acceptDrops(): void {
    const veil = element("drop", HTMLElement);
    document.addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      veil.hidden = false;
    });
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) veil.hidden = true;
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      veil.hidden = true;
      void dropped(event.dataTransfer).then(
        (files) => this.loadFiles(files),
        (error: unknown) => this.hears.problem(message(error)),
      );
    });
  }

  private async showCached(): Promise<void> {
    const note = element("storage", HTMLElement);
    try {
      const models = await cachedModels();
      list.replaceChildren(...models.map((model) => this.cachedItem(model)));
      const { usage, quota } = await navigator.storage.estimate();
      const none = models.length ? "" : "Nothing yet. ";
      note.textContent = `${none}${size(usage ?? 0)} of ${size(quota ?? 0)} used`;
    } catch (error) {
      list.replaceChildren();
      note.textContent = `Downloads are not kept: ${message(error)}`;
    }
  }

  private cachedItem(model: CachedModel): HTMLLIElement {
    const item = document.createElement("li");
    const text = document.createElement("span");
    const state = model.sha256
      ? size(model.size)
      : `${size(model.stored)} of ${size(model.size)}, begun`;
    text.textContent = `${model.name} (${state})`;
    text.title = model.url;
    const act = (label: string, action: () => Promise<unknown>) => {
      const part = document.createElement("button");
      part.type = "button";
      part.textContent = label;
      part.ariaLabel = `${label} ${model.name}`;
      part.addEventListener("click", () => {
        action().catch((error: unknown) => (text.textContent = `${model.name}: ${message(error)}`));
      });
      return part;
    };
    const check = act("Check", async () => {
      const intact = await verifyCachedModel(model.key);
      const state = intact ? "intact" : "incomplete or damaged: delete it";
      text.textContent = `${model.name} (${state})`;
    });
    const remove = act("Delete", () => deleteCachedModel(model.key).then(() => this.showCached()));
    item.append(
      text,
      act("Load", () => this.load({ url: model.url }, model.name)),
      check,
      remove,
    );
    return item;
  }
}

function showProgress(name: string, progress?: Progress): void {
  loading.hidden = false;
  const what = progress?.phase === "download" ? "Downloading" : "Loading";
  const total = progress?.total ?? 0;
  const done = progress && total > 0 ? `: ${size(progress.loaded)} of ${size(total)}` : "";
  element("loading-text", HTMLElement).textContent = `${what} ${name}${done}`;
  element("loading-note", HTMLElement).textContent = progress?.note ?? "";
  if (progress && total > 0) bar.value = progress.loaded / total;
  else bar.removeAttribute("value");
}

/** The files of a drop: those dropped, and those of dropped folders. */
async function dropped(transfer: DataTransfer | null): Promise<File[]> {
  // The list is emptied as soon as this waits.
  const items = [...(transfer?.items ?? [])].map((item) => ({
    entry: item.webkitGetAsEntry(),
    file: item.getAsFile(),
  }));
  const files: File[] = [];
  for (const { entry, file } of items) {
    if (!entry && file) files.push(file);
    else if (entry?.isFile) files.push(await fileOf(entry as FileSystemFileEntry));
    else if (entry?.isDirectory) files.push(...(await filesIn(entry as FileSystemDirectoryEntry)));
  }
  return files;
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

async function filesIn(directory: FileSystemDirectoryEntry): Promise<File[]> {
  const reader = directory.createReader();
  const files: File[] = [];
  for (;;) {
    // A reader gives some at a time.
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (entries.length === 0) return files;
    for (const entry of entries)
      if (entry.isFile) files.push(await fileOf(entry as FileSystemFileEntry));
  }
}
