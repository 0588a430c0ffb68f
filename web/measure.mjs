// The demo model's decoding rate in Chromium against the native program, both on SwiftShader. Close everything else.

import { launch, native, packagePage, whole } from "./tests/support.mjs";
import { serve } from "./tests/server.mjs";

const [TOKENS, ROUNDS] = [128, 5];
const PROMPT = "Write a poem about love.";

process.env.VK_DRIVER_FILES = process.env.SWIFTSHADER ?? "/usr/lib/chromium/vk_swiftshader_icd.json";
const [browser, web] = [await launch(), await serve()];
const page = await packagePage(browser, web.origin);
const rates = { native: [], chromium: [] };
for (let round = 0; round < ROUNDS; round++) {
  const here = await native("--backend", "wgpu", "-n", String(TOKENS), PROMPT);
  const there = whole(await page.evaluate(([prompt, n]) => answer("demo", prompt, {}, n), [PROMPT, TOKENS]));
  rates.native.push(here.decode_tokens_per_s);
  rates.chromium.push(there.result.decodeRate);
}
await browser.close();
web.server.closeAllConnections();
web.server.close();
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const [here, there] = [median(rates.native), median(rates.chromium)];
console.log(`native ${here.toFixed(1)}, Chromium ${there.toFixed(1)} tokens/s, ratio ${(there / here).toFixed(2)}`);
console.log(JSON.stringify(rates));
