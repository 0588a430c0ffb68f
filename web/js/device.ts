// What wgpu omits in browsers: subgroup operations, and the reasons of missing and lost devices.

let loss: string | undefined;

/** Subgroup sizes that kernels assume where a browser does not report them. */
const ANY_SUBGROUP: [number, number] = [4, 128];

const WORKERS_LACK_IT =
  "WebGPU is missing in this browser's workers: a newer version may have it " +
  "(Firefox: dom.webgpu.workers.enabled in about:config)";

const NO_ADAPTER = "the browser offers no graphics card to WebGPU: a newer version or driver may";

/** Why this worker cannot use WebGPU, or `null` if it can. */
export async function reasonAgainstWebgpu(): Promise<string | null> {
  if (!navigator.gpu) return WORKERS_LACK_IT;
  return (await navigator.gpu.requestAdapter()) ? null : NO_ADAPTER;
}

/**
 * Requests subgroups for this worker's devices, which wgpu does not do yet, and watches for loss.
 *
 * Returns the smallest and the largest subgroup size, or `null` if the browser lacks a feature that
 * the kernels use.
 */
export async function prepareDevices(subgroups: boolean): Promise<[number, number] | null> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  const usable =
    adapter?.features.has("subgroups") && navigator.gpu.wgslLanguageFeatures.has("subgroup_id");
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

/** The error with its remedy. A failure often arrives just before the news of a lost device. */
export async function advise(message: string): Promise<string> {
  if (!message.startsWith("device: ")) return message;
  for (let wait = 0; loss === undefined && wait < 5; wait++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  if (loss === undefined) return message;
  return `device: lost: ${loss.replace(/\s+/g, " ").trim()}: load the model again`;
}

/** The graphics card, in the browser's words. */
export async function deviceName(): Promise<string> {
  const info = (await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }))?.info;
  const words = info ? [info.vendor, info.architecture, info.device, info.description] : [];
  return words.filter((word) => word !== "").join(" ");
}
