// A server for the tests: the built page and package, files for models, and the faults that servers
// have.

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { root, target } from "./support.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));

/** Prefixes of URLs, and their directories. */
const PLACES = {
  "/page/": path.join(root, "web/dist/page"),
  "/package/": path.join(root, "web/dist/package"),
  "/tests/": here,
  "/gguf/": path.join(root, "tests/goldens_gguf"),
  "/assets/": path.join(root, "assets"),
  "/kernels/": path.join(target, "tmp"),
};

const SCRIPT = "text/javascript";
const TYPES = {
  ".html": "text/html",
  ".js": SCRIPT,
  ".mjs": SCRIPT,
  ".css": "text/css",
  ".wasm": "application/wasm",
};

/**
 * Starts a server on a free port. `sparse` has virtual files by their path: `size`, and `pieces` as
 * `[offset, bytes]` with zeros between them. The server sends ranges of them.
 * `faults` may change at any time:
 * - `cors`: whether other origins may read
 * - `ranges`: whether the server sends ranges
 * - `cutAfter`: bytes of a body after which the connection breaks
 * - `down`: whether requests for files of models are refused
 */
export async function serve() {
  const faults = { cors: true, ranges: true, cutAfter: Infinity, down: false };
  /** Requests for models: path and range. */
  const requests = [];
  const sparse = new Map();
  const server = http.createServer((request, response) => {
    answer(request, response, { faults, requests, sparse }).catch((error) => {
      response.statusCode = error.code === "ENOENT" ? 404 : 500;
      response.end(String(error));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  const origin = `http://localhost:${port}`;
  return { origin, other: `http://127.0.0.1:${port}`, faults, requests, sparse, server };
}

async function answer(request, response, { faults, requests, sparse }) {
  const url = new URL(request.url, "http://localhost");
  if (faults.cors) {
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.setHeader("Access-Control-Expose-Headers", "Content-Range, ETag");
  }
  const prefix = Object.keys(PLACES).find((prefix) => url.pathname.startsWith(prefix));
  if (url.pathname === "/blank") {
    response.setHeader("Content-Type", "text/html");
    return response.end("<!doctype html><title>blank</title>");
  }
  if (sparse.has(url.pathname)) {
    requests.push({ method: request.method, path: url.pathname, range: request.headers.range });
    return sendSparse(request, response, sparse.get(url.pathname));
  }
  if (!prefix || url.pathname.includes("..")) {
    response.statusCode = 404;
    return response.end();
  }
  const file = path.join(
    PLACES[prefix],
    decodeURIComponent(url.pathname.slice(prefix.length)) || "index.html",
  );
  response.setHeader("Content-Type", TYPES[path.extname(file)] ?? "application/octet-stream");
  if (prefix !== "/gguf/") return response.end(await readFile(file));
  requests.push({ method: request.method, path: url.pathname, range: request.headers.range });
  if (faults.down) {
    response.statusCode = 503;
    return response.end();
  }
  return sendModel(request, response, file, faults);
}

async function sendModel(request, response, file, faults) {
  const { size, mtimeMs } = await stat(file);
  response.setHeader("ETag", `"${size}-${mtimeMs}"`);
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
  const from = faults.ranges && first !== undefined ? Number(first) : 0;
  const to = faults.ranges && last ? Math.min(Number(last), size - 1) : size - 1;
  if (faults.ranges && first !== undefined) {
    response.statusCode = 206;
    response.setHeader("Content-Range", `bytes ${from}-${to}/${size}`);
  }
  response.setHeader("Content-Length", to - from + 1);
  if (request.method === "HEAD") return response.end();
  if (to - from < faults.cutAfter)
    return createReadStream(file, { start: from, end: to }).pipe(response);
  const bytes = (await readFile(file)).subarray(from, from + faults.cutAfter);
  response.write(bytes, () => setTimeout(() => response.destroy(), 50));
}

function sendSparse(request, response, { size, pieces }) {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
  if (first === undefined) {
    // No client should request all of it.
    response.statusCode = 400;
    return response.end();
  }
  const [from, to] = [Number(first), Math.min(Number(last), size - 1) + 1];
  response.statusCode = 206;
  response.setHeader("Content-Range", `bytes ${from}-${to - 1}/${size}`);
  const body = Buffer.alloc(to - from);
  for (const [offset, bytes] of pieces) {
    const part = bytes.subarray(Math.max(from - offset, 0), Math.max(to - offset, 0));
    part.copy(body, Math.max(offset - from, 0));
  }
  return response.end(body);
}
