// The package's worker in a browser that offers no storage.

Object.defineProperty(StorageManager.prototype, "getDirectory", { value: undefined });
const early = [];
self.onmessage = (event) => early.push(event);
await import("/package/worker.js");
early.forEach((event) => self.onmessage(event));
