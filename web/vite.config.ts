import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

// The page uses the package as any other program would.
export default defineConfig({
  root: here("page"),
  base: "./",
  resolve: { alias: { "gemma4-wgpu": here("dist/package/index.js") } },
  build: { outDir: here("dist/page"), emptyOutDir: true, target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
});
