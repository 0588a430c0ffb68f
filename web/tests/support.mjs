// A real headless Chromium on its software adapter, and the native program to compare with.

import { execFile } from "node:child_process";
import { access, mkdir } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const run = promisify(execFile);
const web = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

export const root = path.dirname(web);
export const target = path.resolve(web, process.env.CARGO_TARGET_DIR ?? "../target");
const artifacts = path.join(web, "artifacts");

/** For WebGPU on the software adapter. */
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A browser; other flags than those of WebGPU may take its place. */
export async function launch(webgpu = WEBGPU) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  await access(executablePath).catch(() => {
    throw new Error(`${executablePath} is missing: apt-get install chromium, or set CHROMIUM`);
  });
  return chromium.launch({ executablePath, args: [...FLAGS, ...webgpu] });
}

/** The native program's answer by `--json`. */
export async function native(...args) {
  const program = process.env.GEMMA4_WGPU ?? path.join(target, "debug/gemma4-wgpu");
  const { stdout } = await run(
    program,
    ["run", "--json", "--quiet", "--temperature", "0", ...args],
    { cwd: root },
  );
  return JSON.parse(stdout);
}

/** The same for the `answer` of pages. */
export function nativeTokens(prompt, ...args) {
  const like = ["--backend", "cpu", "--raw-prompt", "--repetition-penalty", "1.8", "-n", "16"];
  return native(...like, ...args, prompt).then(({ tokens }) => tokens);
}

/** Writes a screenshot of a page, for people to see. */
export async function screenshot(page, name) {
  await mkdir(artifacts, { recursive: true });
  await page.screenshot({ path: path.join(artifacts, `${name}.png`) });
}

/** A page of the test server with the package as `gemma`. */
export async function packagePage(browser, origin) {
  const page = await browser.newPage();
  await page.goto(`${origin}/blank`);
  await page.evaluate(async () => {
    window.gemma = await import("/package/index.js");
    /**
     * Loads a source and returns its greedy continuation of a text, or the error. Texts of two or
     * three tokens need few kernels; each takes seconds to compile on the software adapter.
     * The penalty keeps random models from repeating one word.
     */
    window.answer = async (source, prompt, settings = {}, maxTokens = 16) => {
      const progress = [];
      let model;
      try {
        model = await gemma.Gemma.load(source, {
          onProgress: (event) => progress.push(event),
          ...settings,
        });
        const answer = model.complete(prompt, {
          temperature: 0,
          repetitionPenalty: 1.8,
          maxTokens,
        });
        let text = "";
        for await (const piece of answer) text += piece;
        return {
          text,
          result: answer.result,
          info: model.info,
          hostBytes: model.hostBytes,
          progress,
        };
      } catch (error) {
        return { error: error.message, progress };
      } finally {
        await model?.dispose();
      }
    };
  });
  return page;
}

/** Fails with the reason if a page's answer is an error. */
export function whole(answer) {
  if (answer.error !== undefined) throw new Error(answer.error);
  return answer;
}
