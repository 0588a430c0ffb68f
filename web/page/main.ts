// The page: connects its parts and loads the demo model.

import type { ChatResult, Gemma, ModelInfo } from "gemma4-wgpu";
import { Conversation } from "./conversation.js";
import { element, size } from "./dom.js";
import { Models } from "./models.js";
import * as settings from "./settings.js";

const problem = element("problem", HTMLElement);
const notice = element("notice", HTMLElement);

function showProblem(text: string): void {
  problem.textContent = text;
  problem.hidden = text === "";
}

/** Says that the CPU answers, and how to get WebGPU. */
function showNotice(info: ModelInfo | undefined): void {
  notice.hidden = info?.backend !== "cpu";
  const remedy = info?.note ? `: ${info.note}` : ".";
  notice.textContent = notice.hidden ? "" : `The CPU answers, which is slow${remedy}`;
}

function showFigures(result: ChatResult): void {
  const figures = [
    answering && `by ${settings.backendName(answering)}`,
    `${result.tokens.length} tokens`,
    result.decodeRate === null ? undefined : `${result.decodeRate.toFixed(1)} tokens/s`,
    result.timeToFirstToken === null
      ? undefined
      : `first token after ${(result.timeToFirstToken * 1000).toFixed(0)} ms`,
    `prompt ${result.promptTokens} (${result.cachedTokens} known)`,
    `${size(result.peakBytes)} on the device, ${size(result.hostBytes)} program`,
    result.finishReason === "stop" ? undefined : `ended by ${result.finishReason}`,
  ];
  element("figures", HTMLElement).textContent = figures
    .filter((figure) => figure !== undefined)
    .join(" · ");
}

/** Facts of the loaded model. */
let answering: ModelInfo | undefined;

settings.start();
const conversation = new Conversation({
  problem: showProblem,
  result: (result) => {
    showProblem("");
    showFigures(result);
  },
});
const models = new Models({
  problem: showProblem,
  model: (model: Gemma | undefined) => {
    showProblem("");
    answering = model?.info;
    showNotice(answering);
    conversation.use(model);
    element("model-name", HTMLElement).textContent = model?.info.model ?? "no model";
    element("status", HTMLElement).textContent = model
      ? `${model.info.model} is ready`
      : "Loading a model";
    if (model) settings.showFacts(model.info, model.hostBytes);
  },
});
void models.load("demo", "the demo model");
