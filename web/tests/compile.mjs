// Compiles kernels with any WebGPU: a page's, or Dawn's in Node.

const TYPES = { Read: "read-only-storage", ReadWrite: "storage", Uniform: "uniform" };
// GPUShaderStage.COMPUTE
const COMPUTE = 4;

/**
 * Compiles the kernels that the adapter can run; returns their number, the number of pipelines, and
 * the failures. If `one`, one kernel of each name becomes a pipeline, because software is slow.
 */
export async function compileAll(gpu, kernels, one = false) {
  const adapter = await gpu.requestAdapter();
  const requiredFeatures = ["shader-f16", "subgroups"].filter((feature) =>
    adapter.features.has(feature),
  );
  const device = await adapter.requestDevice({ requiredFeatures });
  const outcome = { taken: 0, pipelines: 0, failures: [] };
  device.onuncapturederror = ({ error }) => outcome.failures.push(error.message);
  const has = (feature) => device.features.has(feature);
  const able = kernels.filter(
    ({ f16, subgroups }) => (!f16 || has("shader-f16")) && (!subgroups || has("subgroups")),
  );
  const seen = new Set();
  for (let first = 0; first < able.length; first += 16) {
    const compiled = able.slice(first, first + 16).map((kernel) => {
      const kind = `${kernel.name} ${kernel.subgroups}`;
      const whole = !one || !seen.has(kind);
      seen.add(kind);
      return compile(device, kernel, whole, outcome);
    });
    await Promise.all(compiled);
  }
  device.destroy();
  outcome.failures = [...new Set(outcome.failures)];
  return outcome;
}

async function compile(device, { name, wgsl, bindings, subgroups }, whole, outcome) {
  // As src/gpu/device.rs does: wgpu's own compiler wants no `enable` for subgroups, browsers do.
  const enable = subgroups ? "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n" : "";
  const module = device.createShaderModule({ code: enable + wgsl });
  const { messages } = await module.getCompilationInfo();
  const error = [...messages].find(({ type }) => type === "error");
  if (error) {
    outcome.failures.push(`${name}:${error.lineNum}: ${error.message}`);
    return;
  }
  outcome.taken++;
  if (!whole) return;
  const entries = bindings.map((use, binding) => ({
    binding,
    visibility: COMPUTE,
    buffer: { type: TYPES[use] },
  }));
  const layout = device.createPipelineLayout({
    bindGroupLayouts: [device.createBindGroupLayout({ entries })],
  });
  try {
    await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: "main" } });
    outcome.pipelines++;
  } catch (error) {
    outcome.failures.push(`${name}: ${error.message}`);
  }
}
