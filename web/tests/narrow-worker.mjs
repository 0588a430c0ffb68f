// The package's worker on a device that allows few bytes in a buffer: as many as its URL says.

const bytes = Number(new URL(import.meta.url).searchParams.get("bytes"));
for (const limit of ["maxBufferSize", "maxStorageBufferBindingSize"]) {
  Object.defineProperty(GPUSupportedLimits.prototype, limit, { get: () => bytes });
}
const early = [];
self.onmessage = (event) => early.push(event);
await import("/package/worker.js");
early.forEach((event) => self.onmessage(event));
