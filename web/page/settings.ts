// System prompt, sampling and theme.

import type { GenerateOptions, ModelInfo } from "gemma4-wgpu";
import { button, element, remembered, size } from "./dom.js";

const dialog = element("settings", HTMLDialogElement);
const system = element("system", HTMLTextAreaElement);
const fields = [...dialog.querySelectorAll<HTMLInputElement>("input[name]")];
const KEY = "gemma4-wgpu.settings";

/** The system prompt, if there is one. */
export function systemPrompt(): string {
  return system.value.trim();
}

/** The user's options; the model decides those that are empty. */
export function generateOptions(): GenerateOptions {
  const options: Record<string, number | boolean> = {};
  for (const field of fields) {
    if (field.type === "checkbox") options[field.name] = field.checked;
    else if (field.value !== "" && field.validity.valid) options[field.name] = field.valueAsNumber;
  }
  return options;
}

/** The backend that answers. */
export function backendName(info: ModelInfo): string {
  return info.backend === "cpu" ? "CPU" : "WebGPU";
}

/** Shows facts of the model and its device. */
export function showFacts(info: ModelInfo, hostBytes: number): void {
  const facts: [string, string][] = [
    ["Model", info.model],
    ["Backend", backendName(info)],
    ["Device", info.device || "not told by the browser"],
    ["Context", `${info.contextLength} tokens`],
    ["Weights on it", size(info.weightBytes)],
    ["KV cache on it", size(info.kvBytes)],
    ["Most in use on it", size(info.peakBytes)],
    ["Program's memory", size(hostBytes)],
  ];
  if (info.maxBufferBytes !== null && info.maxBindingBytes !== null)
    facts.push(
      ["Largest buffer", size(info.maxBufferBytes)],
      ["Largest binding", size(info.maxBindingBytes)],
      ["16-bit arithmetic", info.shaderF16 ? "yes" : "no"],
    );
  const items = facts.flatMap(([name, value]) => {
    const [term, fact] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, fact.textContent] = [name, value];
    return [term, fact];
  });
  element("facts", HTMLElement).replaceChildren(...items);
}

function save(): void {
  const values = Object.fromEntries(
    fields.map((field) => [
      field.name,
      field.type === "checkbox" ? String(field.checked) : field.value,
    ]),
  );
  remembered.set(KEY, JSON.stringify({ ...values, system: system.value }));
}

function restore(): void {
  let values: Record<string, unknown> = {};
  try {
    values = JSON.parse(remembered.get(KEY) ?? "{}");
  } catch {
    // Not text of this page.
  }
  for (const field of fields) {
    const value = values[field.name];
    if (typeof value !== "string") continue;
    if (field.type === "checkbox") field.checked = value === "true";
    else field.value = value;
  }
  if (typeof values["system"] === "string") system.value = values["system"];
}

const THEMES = ["system", "light", "dark"];

function showTheme(theme: string): void {
  document.documentElement.dataset["theme"] = theme;
  button("theme").textContent = `Theme: ${theme}`;
}

/** Connects the dialog and the theme's button. */
export function start(): void {
  restore();
  dialog.addEventListener("change", save);
  button("open-settings").addEventListener("click", () => dialog.showModal());
  let theme = remembered.get("gemma4-wgpu.theme") ?? "system";
  showTheme(theme);
  button("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
    remembered.set("gemma4-wgpu.theme", theme);
    showTheme(theme);
  });
}
