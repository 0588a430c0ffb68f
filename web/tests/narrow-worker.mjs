// The package's worker on a device that allows few bytes in a buffer; its URL has the number.
// Larger buffers are refused. The channel "buffers" gets the labels of the others.

const bytes = Number(new URL(import.meta.url).searchParams.get("bytes"));
for (const limit of ["maxBufferSize", "maxStorageBufferBindingSize"]) {
  Object.defineProperty(GPUSupportedLimits.prototype, limit, { get: () => bytes });
}
const { createBuffer } = GPUDevice.prototype;
const channel = new BroadcastChannel("buffers");
GPUDevice.prototype.createBuffer = function (descriptor) {
  if (descriptor.size > bytes)
    throw new Error(`${descriptor.label}: ${descriptor.size} bytes in one buffer`);
  channel.postMessage(descriptor.label);
  return createBuffer.call(this, descriptor);
};
const early = [];
self.onmessage = (event) => early.push(event);
await import("/package/worker.js");
early.forEach((event) => self.onmessage(event));
