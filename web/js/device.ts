// What wgpu leaves out of the browser's devices: subgroup operations, and why one was lost.

let loss: string | undefined;

/** Subgroup sizes that kernels count on where a browser does not tell. */
const ANY_SUBGROUP: [number, number] = [4, 128];

/**
 * Makes this worker's devices come with subgroups, which wgpu does not ask for yet, and watches them. The smallest and the largest
 * subgroup if the browser has what the kernels use of them, `null` if not.
 */
export async function prepareDevices(subgroups: boolean): Promise<[number, number] | null> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  const usable = adapter?.features.has("subgroups") && navigator.gpu.wgslLanguageFeatures.has("subgroup_id");
  const more: GPUFeatureName[] = subgroups && usable ? ["subgroups"] : [];
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (descriptor = {}) {
    const requiredFeatures = new Set([...(descriptor.requiredFeatures ?? []), ...more]);
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures });
    void device.lost.then(({ reason, message }) => (loss = message || reason));
    return device;
  };
  if (!adapter || more.length === 0) return null;
  const { subgroupMinSize: smallest, subgroupMaxSize: largest } = adapter.info;
  return smallest && largest ? [smallest, largest] : ANY_SUBGROUP;
}

/** The error with what to do about it. A device's failure often comes just before the news that it was lost. */
export async function advise(message: string): Promise<string> {
  if (!message.startsWith("device: ")) return message;
  for (let wait = 0; loss === undefined && wait < 5; wait++) await new Promise((resolve) => setTimeout(resolve, 20));
  if (loss === undefined) return message;
  return `device: lost: ${loss.replace(/\s+/g, " ").trim()}: load the model again`;
}

/** The graphics card, in the words that the browser gives away. */
export async function deviceName(): Promise<string> {
  const info = (await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }))?.info;
  const words = info ? [info.vendor, info.architecture, info.device, info.description] : [];
  return words.filter((word) => word !== "").join(" ");
}
