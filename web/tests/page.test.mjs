// The page as a person uses it: by mouse, by keyboard, on a phone, and where WebGPU is missing.
// cpu.test.mjs has browsers without it.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { launch, native, root, screenshot } from "./support.mjs";
import { serve } from "./server.mjs";

const PATIENCE = 180_000;

let browser, web;

before(async () => {
  [browser, web] = [await launch(), await serve()];
});

after(async () => {
  await browser?.close();
  web?.server.closeAllConnections();
  web?.server.close();
});

/** The page in a fresh browser profile; its errors fail the test. */
async function open(t, options = {}, prepare = undefined) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  t.after(() => assert.deepEqual(errors, []));
  if (prepare) await page.addInitScript(prepare);
  await page.goto(`${web.origin}/page/`);
  return page;
}

const ready = (page) => page.waitForSelector("#send:not([disabled])", { timeout: PATIENCE });
/** Waits until the answer under way has ended. */
const answered = (page, count) =>
  page.waitForFunction(
    (count) =>
      document.querySelectorAll("#log li.assistant:not(.running)").length === count &&
      document.getElementById("stop").hidden,
    count,
    { timeout: PATIENCE },
  );

async function set(page, name, value) {
  await page.click("#open-settings");
  await page.fill(`#settings [name="${name}"]`, value);
  await page.click("#settings button[value=close]");
}

test("a visitor asks the demo model by keyboard, goes on, and begins a new chat", async (t) => {
  const page = await open(t, { colorScheme: "light" });
  await ready(page);
  assert.match(await page.textContent("#model-name"), /Gemma 4/);
  await set(page, "temperature", "0");
  await set(page, "maxTokens", "24");
  await page.focus("#prompt");
  await page.keyboard.type("Write a poem about love.");
  await page.keyboard.press("Enter");
  await answered(page, 1);
  const expected = await native("--backend", "cpu", "-n", "24", "Write a poem about love.");
  assert.equal(await page.textContent("#log li.assistant"), expected.text);
  assert.match(
    await page.textContent("#figures"),
    /by WebGPU · 24 tokens · [\d.]+ tokens\/s · first token after \d+ ms/,
  );
  assert.equal(await page.isHidden("#notice"), true);
  assert.match(await page.textContent("#status"), /The model's answer/);
  await screenshot(page, "chat-light");
  await page.fill("#prompt", "And hate?");
  await page.click("#send");
  await answered(page, 2);
  await page.click("#open-settings");
  assert.match(await page.textContent("#facts"), /Weights on it\d.*KV cache on it.*Largest buffer/);
  await screenshot(page, "settings");
  await page.keyboard.press("Escape");
  await page.click("#new-chat");
  assert.equal(await page.locator("#log li").count(), 0);
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
});

test("stopping keeps what was said, and the page stays alive meanwhile", async (t) => {
  const page = await open(t, { colorScheme: "dark" });
  await ready(page);
  await page.fill("#prompt", "Tell me a very long story.");
  await page.keyboard.press("Enter");
  await page.waitForFunction(
    () => document.querySelector("#log li.running")?.textContent.length > 5,
    undefined,
    {
      timeout: PATIENCE,
    },
  );
  const longest = await page.evaluate(async () => {
    let [longest, last] = [0, performance.now()];
    for (let tick = 0; tick < 20; tick++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      const now = performance.now();
      [longest, last] = [Math.max(longest, now - last), now];
    }
    return longest;
  });
  assert.ok(longest < 1000, `the page did not answer for ${longest} ms`);
  await page.keyboard.press("Escape");
  await answered(page, 1);
  assert.ok((await page.textContent("#log li.assistant")).length > 5);
  assert.match(await page.textContent("#figures"), /ended by cancelled/);
  assert.equal(await page.evaluate(() => matchMedia("(prefers-color-scheme: dark)").matches), true);
  await screenshot(page, "chat-dark");
});

test("a GGUF file is picked from disk, dropped, and refused if it is none", async (t) => {
  const page = await open(t);
  await ready(page);
  const model = path.join(root, "tests/goldens_gguf/gemma4/model.gguf");
  await set(page, "temperature", "0");
  await set(page, "maxTokens", "12");
  await page.click("#open-models");
  await screenshot(page, "models");
  await page.setInputFiles("#files", model);
  await page.waitForFunction(
    () => /GGUF/.test(document.getElementById("model-name").textContent),
    undefined,
    {
      timeout: PATIENCE,
    },
  );
  await page.fill("#prompt", "the cat ate");
  await page.keyboard.press("Enter");
  await answered(page, 1);
  const expected = await native("--backend", "cpu", "--model", model, "-n", "12", "the cat ate");
  assert.equal(await page.textContent("#log li.assistant"), expected.text);

  const drop = (name, url) =>
    page.evaluate(
      async ([name, url]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([await (await fetch(url)).blob()], name));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
      },
      [name, url],
    );
  await drop("cat.png", "/tests/server.mjs");
  await page.waitForSelector("#problem:not([hidden])", { timeout: PATIENCE });
  assert.match(
    await page.textContent("#problem"),
    /cat\.png: neither a \.safetensors nor a \.gguf file/,
  );
  assert.equal(await page.isDisabled("#send"), true);
  await screenshot(page, "problem");
  await drop("model.gguf", "/gguf/gemma4/model.gguf");
  await ready(page);
  assert.equal(await page.isHidden("#problem"), true);
});

test("a model from a URL is listed and deleted", async (t) => {
  const page = await open(t);
  await ready(page);
  await page.click("#open-models");
  await page.fill("#url", `${web.origin}/gguf/gemma4/model.gguf`);
  await page.click("#load-url");
  await page.waitForFunction(
    () => /GGUF/.test(document.getElementById("model-name").textContent),
    undefined,
    {
      timeout: PATIENCE,
    },
  );
  await page.click("#open-models");
  await page.waitForSelector("#cached li");
  assert.match(await page.textContent("#cached li"), /model\.gguf \(0\.5 MB\)/);
  await page.click("#cached button:text('Check')");
  await page.waitForFunction(() => /intact/.test(document.querySelector("#cached li").textContent));
  await page.click("#cached button:text('Delete')");
  await page.waitForFunction(() => document.querySelectorAll("#cached li").length === 0);
});

test("the page fits a phone and names all its controls", async (t) => {
  const page = await open(t, {
    viewport: { width: 360, height: 640 },
    hasTouch: true,
    isMobile: true,
  });
  await ready(page);
  await page.fill("#prompt", "Hello");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 360, `${wide} pixels wide`);
  await screenshot(page, "phone");
  for (const dialog of ["models", "settings"]) {
    await page.click(`#open-${dialog}`);
    const inside = await page.evaluate((id) => {
      const box = document.getElementById(id);
      return (
        box.scrollWidth <= box.clientWidth + 1 && box.getBoundingClientRect().right <= innerWidth
      );
    }, dialog);
    assert.ok(inside, dialog);
    await screenshot(page, `phone-${dialog}`);
    await page.click(`#${dialog} button[value=close]`);
  }
  const nameless = await page.evaluate(() => {
    const controls = [
      ...document.querySelectorAll("button, input:not([hidden]), textarea, progress"),
    ];
    const named = (element) =>
      element.ariaLabel || element.labels?.length || element.textContent.trim();
    return controls.filter((element) => !named(element)).map((element) => element.outerHTML);
  });
  assert.deepEqual(nameless, []);
});

test("a browser that has WebGPU switched off is told how to switch it on", async (t) => {
  const without = () => Object.defineProperty(Navigator.prototype, "gpu", { value: undefined });
  const linux = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
  for (const [agent, pattern] of [
    [
      linux,
      /switched off: set dom\.webgpu\.enabled and dom\.webgpu\.workers\.enabled to true in about/,
    ],
    [linux.replace("X11; Linux x86_64", "Windows NT 10.0"), /localhost$/],
  ]) {
    const page = await open(t, { userAgent: agent }, without);
    await ready(page);
    const notice = (await page.textContent("#notice")).trim();
    assert.match(notice, /^The CPU answers, which is slow: WebGPU is missing: use a current/);
    assert.match(notice, pattern);
    assert.equal(await page.isHidden("#problem"), true);
  }
});
