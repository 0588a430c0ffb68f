// The demo model's decoding rate in Chromium against the native program, both on SwiftShader. Close everything else.

import { launch, native, packagePage } from "./tests/support.mjs";
import { serve } from "./tests/server.mjs";

const [TOKENS, ROUNDS] = [128, 5];
const PROMPT = "Write a poem about love.";

process.env.VK_DRIVER_FILES = process.env.SWIFTSHADER ?? "/usr/lib/chromium/vk_swiftshader_icd.json";
const [browser, web] = [await launch(), await serve()];
const page = await packagePage(browser, web.origin);
await page.evaluate(async () => void (window.model = await gemma.Gemma.load("demo")));
const inChromium = () =>
  page.evaluate(
    async ([content, maxTokens]) => {
      const answer = model.chat([{ role: "user", content }], { temperature: 0, maxTokens });
      for await (const _ of answer);
      return answer.result.decodeRate;
    },
    [PROMPT, TOKENS],
  );
// The first answer waits for compilers.
await inChromium();
const rates = { native: [], chromium: [] };
for (let round = 0; round < ROUNDS; round++) {
  rates.native.push((await native("--backend", "wgpu", "-n", String(TOKENS), PROMPT)).decode_tokens_per_s);
  rates.chromium.push(await inChromium());
}
await browser.close();
web.server.closeAllConnections();
web.server.close();
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const [here, there] = [median(rates.native), median(rates.chromium)];
console.log(`native ${here.toFixed(1)}, Chromium ${there.toFixed(1)} tokens/s, ratio ${(there / here).toFixed(2)}`);
console.log(JSON.stringify(rates));
