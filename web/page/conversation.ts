// The conversation: messages, the answer as it comes, its figures.

import type { Answer, ChatResult, Gemma, Message } from "gemma4-wgpu";
import { button, element, message } from "./dom.js";
import { generateOptions, systemPrompt } from "./settings.js";

const log = element("log", HTMLOListElement);
const prompt = element("prompt", HTMLTextAreaElement);
const status = element("status", HTMLElement);
const scroller = log.parentElement as HTMLElement;

/** How figures and errors are shown. */
export interface Shown {
  problem(text: string): void;
  result(result: ChatResult): void;
}

export class Conversation {
  private messages: Message[] = [];
  private model?: Gemma;
  private running?: AbortController;

  constructor(private readonly shown: Shown) {
    element("compose", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.send();
    });
    prompt.addEventListener("keydown", (event) => {
      // Enter also ends the input of characters that take several keys.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.send();
    });
    button("stop").addEventListener("click", () => this.stop());
    button("new-chat").addEventListener("click", () => this.clear());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.stop();
    });
  }

  /** Uses another model from now on, or none if it is `undefined`. */
  use(model: Gemma | undefined): void {
    this.stop();
    this.model = model;
    this.update();
  }

  stop(): void {
    this.running?.abort(new DOMException("stopped", "AbortError"));
  }

  clear(): void {
    this.stop();
    this.messages = [];
    log.replaceChildren();
    element("figures", HTMLElement).textContent = "";
    prompt.focus();
  }

  private update(): void {
    button("send").disabled = this.model === undefined || this.running !== undefined;
    button("send").hidden = this.running !== undefined;
    button("stop").hidden = this.running === undefined;
  }

  private async send(): Promise<void> {
    const content = prompt.value.trim();
    if (content === "" || !this.model || this.running) return;
    prompt.value = "";
    const messages: Message[] = [...this.messages, { role: "user", content }];
    this.messages = messages;
    addItem("user", "You", content);
    const item = addItem("assistant", "Model", "");
    item.classList.add("running");
    status.textContent = "The model answers";
    const running = (this.running = new AbortController());
    this.update();
    const system = systemPrompt();
    const opening: Message[] = system ? [{ role: "system", content: system }] : [];
    const onThought = (piece: string) => append(thoughtsOf(item), piece);
    const settings = { ...generateOptions(), signal: running.signal, onThought };
    const answer = this.model.chat([...opening, ...messages], settings);
    try {
      await stream(answer, item);
    } catch (error) {
      if (!running.signal.aborted) this.fail(error, item, content);
    } finally {
      item.classList.remove("running");
      this.running = undefined;
      this.update();
    }
    const result = answer.result;
    if (!result) return;
    // Another chat may have begun.
    if (this.messages === messages) this.messages = [...messages, said(result)];
    const label = result.finishReason === "cancelled" ? "Stopped" : "The model's answer";
    status.textContent = `${label}: ${result.text}`;
    this.shown.result(result);
  }

  /** Shows an error and puts the message back into the input. */
  private fail(error: unknown, item: HTMLLIElement, content: string): void {
    this.messages = this.messages.slice(0, -1);
    item.previousElementSibling?.remove();
    item.remove();
    if (prompt.value === "") prompt.value = content;
    this.shown.problem(message(error));
  }
}

async function stream(answer: Answer, item: HTMLLIElement): Promise<void> {
  for await (const piece of answer) append(item, piece);
}

/** Appends text and scrolls to it, unless the reader scrolled up. */
function append(place: HTMLElement, piece: string): void {
  const follows = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
  place.append(piece);
  if (follows) scroller.scrollTop = scroller.scrollHeight;
}

/** Where an answer's thoughts are shown: folded, before its text. */
function thoughtsOf(item: HTMLLIElement): HTMLElement {
  const known = item.querySelector<HTMLElement>("details > div");
  if (known) return known;
  const [details, summary, thoughts] = [
    document.createElement("details"),
    document.createElement("summary"),
    document.createElement("div"),
  ];
  summary.textContent = "Thoughts";
  details.append(summary, thoughts);
  item.prepend(details);
  return thoughts;
}

/** An answer as a message of the conversation. */
function said({ text, reasoning, toolCalls }: ChatResult): Message {
  const message: Message = { role: "assistant", content: text };
  if (reasoning !== null) message.reasoning = reasoning;
  if (toolCalls.length > 0) message.tool_calls = toolCalls;
  return message;
}

function addItem(role: string, who: string, text: string): HTMLLIElement {
  const item = document.createElement("li");
  item.className = role;
  item.dataset["who"] = who;
  item.textContent = text;
  log.append(item);
  scroller.scrollTop = scroller.scrollHeight;
  return item;
}
