// The package's worker with a device that the test can destroy.

const devices = [];
const requestDevice = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...args) {
  const device = await requestDevice.apply(this, args);
  devices.push(device);
  return device;
};

// Messages that come before the package listens wait here.
const early = [];
self.onmessage = (event) => early.push(event);
await import("/package/worker.js");
const { onmessage } = self;
self.onmessage = (event) => {
  if (event.data === "lose") devices.forEach((device) => device.destroy());
  else onmessage(event);
};
early.forEach((event) => self.onmessage(event));
