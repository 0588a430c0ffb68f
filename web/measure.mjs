// Compares the demo model's decoding in Chromium with the native program, both on SwiftShader. With
// BACKEND=cpu both are on one thread of the CPU.
// Tokens per second need an idle machine; other work hardly changes the CPU time of a token. Linux.

import { readFile, readdir } from "node:fs/promises";
import { launch, native, packagePage } from "./tests/support.mjs";
import { serve } from "./tests/server.mjs";

const [TOKENS, ROUNDS] = [128, Number(process.env.ROUNDS ?? 5)];
// The native program's CPU time includes its start, which the difference of two runs removes.
const FEW = 8;
const ON_CPU = process.env.BACKEND === "cpu";
const PROMPT = "Write a poem about love.";
/** Clock ticks a second in /proc. */
const TICKS = 100;

/** Seconds of CPU time of this program's descendants, also of those that ended. */
async function processorTime() {
  const processes = new Map();
  for (const id of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const text = await readFile(`/proc/${id}/stat`, "utf8").catch(() => undefined);
    if (text === undefined) continue;
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    // utime, stime, and those of children that were waited for.
    processes.set(id, { parent: fields[1], ticks: fields.slice(11, 15).map(Number) });
  }
  const self = String(process.pid);
  const isOurs = (id) =>
    processes.has(id) && (processes.get(id).parent === self || isOurs(processes.get(id).parent));
  let ticks = processes.get(self).ticks[2] + processes.get(self).ticks[3];
  for (const [id, { ticks: own }] of processes)
    if (isOurs(id)) ticks += own.reduce((sum, value) => sum + value);
  return ticks / TICKS;
}

/** A run's result and its CPU time. */
async function timed(run) {
  const before = await processorTime();
  return [await run(), (await processorTime()) - before];
}

process.env.VK_DRIVER_FILES =
  process.env.SWIFTSHADER ?? "/usr/lib/chromium/vk_swiftshader_icd.json";
const [browser, web] = [await launch(), await serve()];
const page = await packagePage(browser, web.origin);
await page.evaluate(
  async (backend) => void (window.model = await gemma.Gemma.load("demo", { backend })),
  ON_CPU ? "cpu" : "webgpu",
);
const inChromium = (tokens) =>
  page.evaluate(
    async ([content, maxTokens]) => {
      const answer = model.chat([{ role: "user", content }], { temperature: 0, maxTokens });
      for await (const _ of answer);
      return { tokens: answer.result.tokens, rate: answer.result.decodeRate };
    },
    [PROMPT, tokens],
  );
const natively = async (most) => {
  const { tokens, decode_tokens_per_s: rate } = await native(
    ...(ON_CPU ? ["--backend", "cpu", "--threads", "1"] : ["--backend", "wgpu"]),
    "-n",
    String(most),
    PROMPT,
  );
  return { tokens, rate };
};
// The first answer includes compilation.
await inChromium(FEW);
const [rates, costs] = [
  { native: [], chromium: [] },
  { native: [], chromium: [] },
];
for (let round = 0; round < ROUNDS; round++) {
  for (const [name, run] of Object.entries({ native: natively, chromium: inChromium })) {
    const [few, little] = await timed(() => run(FEW));
    const [many, much] = await timed(() => run(TOKENS));
    rates[name].push(many.rate);
    costs[name].push(((much - little) / (many.tokens.length - few.tokens.length)) * 1000);
  }
}
await browser.close();
web.server.closeAllConnections();
web.server.close();
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const [rate, cost] = [rates, costs].map(({ native, chromium }) => ({
  native: median(native),
  chromium: median(chromium),
}));
console.log(
  `native ${rate.native.toFixed(1)}, Chromium ${rate.chromium.toFixed(1)} tokens/s, ` +
    `ratio ${(rate.chromium / rate.native).toFixed(2)}`,
);
console.log(
  `native ${cost.native.toFixed(1)}, Chromium ${cost.chromium.toFixed(1)} ms CPU time a token, ` +
    `ratio ${(cost.native / cost.chromium).toFixed(2)}`,
);
console.log(JSON.stringify({ rates, costs }));
