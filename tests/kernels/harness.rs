//! Runs one kernel on every variant that the adapter can run.
//!
//! A device keeps its compiled pipelines, and lavapipe keeps LLVM's modules for each of them.
//! A run compiles thousands, which need too much memory. So devices forget them from time to time.

use std::sync::OnceLock;

use gemma4_wgpu::gpu::{
    DeviceOptions, Gpu, GpuBuffer, KernelOptions, StepSize, kernels::Kernel, kernels::stride,
};
use pollster::block_on;

/// The number of pipelines after which a device forgets them.
const KEPT_PIPELINES: usize = 24;

/// The adapter, opened in every variant. Without f16, as on SwiftShader, in half of them.
/// A machine without an adapter fails.
pub fn devices() -> &'static [Gpu] {
    static DEVICES: OnceLock<Vec<Gpu>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let first = block_on(Gpu::open(&DeviceOptions::default()))
            .expect("the kernel tests need an adapter");
        let facts = first.facts().clone();
        let sizes = [facts.subgroup_min_size, facts.subgroup_max_size];
        let has_lanes = sizes[0] == sizes[1] && sizes[0] >= 4;
        let on_off = |supported: bool| if supported { vec![false, true] } else { vec![false] };
        let mut all = Vec::new();
        for subgroups in on_off(facts.subgroups) {
            for f16 in on_off(facts.shader_f16) {
                for checks in if facts.shader_f16 { vec![false, true] } else { vec![subgroups] } {
                    let kernels = KernelOptions {
                        subgroups: Some(subgroups),
                        f16: Some(f16),
                        dp4a: Some(true),
                        coop: Some(false),
                        // Only in some variants, as it does not depend on the other choices.
                        large_workgroups: Some(
                            f16 && facts.max_workgroup_invocations >= 1024
                                && facts.max_workgroup_bytes >= 32 << 10,
                        ),
                        // The tests run kernels whether the variant would choose them or not.
                        // With this option other kernels use subgroups more.
                        row_per_invocation: Some(checks && subgroups && has_lanes),
                        prefetch: Some(false),
                        checks: Some(checks),
                        ..KernelOptions::UNSET
                    };
                    let options = DeviceOptions {
                        adapter: Some(facts.index.to_string()),
                        kernels,
                        ..Default::default()
                    };
                    all.push(block_on(Gpu::open(&options)).expect("the variant opens"));
                }
            }
        }
        if first.variant().coop.is_some() {
            all.push(first);
        }
        all
    })
}

/// Buffers by the names of a kernel's bindings.
pub type Named<'a> = (&'static str, &'a GpuBuffer);

/// Runs a kernel once over `buffers`.
pub fn run(gpu: &Gpu, kernel: &dyn Kernel, buffers: &[Named], rows: usize, outputs: usize) {
    run_step(gpu, kernel, buffers, StepSize { rows, outputs, keys: 0 });
}

/// Runs a kernel once for a step.
pub fn run_step(gpu: &Gpu, kernel: &dyn Kernel, buffers: &[Named], step: StepSize) {
    if gpu.pipeline_stats().made.is_multiple_of(KEPT_PIPELINES) {
        gpu.forget_pipelines();
    }
    let source = kernel.source(gpu.target());
    let dispatch =
        gpu.dispatch(&source, buffers, kernel.grid(gpu.target())).expect("the kernel compiles");
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    dispatch.encode(&mut pass, step);
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
    gpu.wait().expect("the kernel runs");
}

/// A buffer of any plain values.
pub fn upload<T: bytemuck::NoUninit>(gpu: &Gpu, values: &[T]) -> GpuBuffer {
    gpu.buffer_of("test", bytemuck::cast_slice(values)).expect("the buffer fits")
}

/// Activations `[rows, cols]` in the layout of the kernels, padded with zeros.
pub fn upload_rows(gpu: &Gpu, x: &[f32], cols: usize) -> GpuBuffer {
    let mut padded = Vec::new();
    for row in x.chunks_exact(cols) {
        padded.extend_from_slice(row);
        padded.resize(padded.len().next_multiple_of(stride(cols)), 0.0);
    }
    upload(gpu, &padded)
}

/// A copy of a buffer.
pub fn copy(gpu: &Gpu, buffer: &GpuBuffer) -> GpuBuffer {
    upload(gpu, &download::<u32>(gpu, buffer, usize::MAX))
}

/// A zeroed buffer of `words`.
pub fn zeros(gpu: &Gpu, words: usize) -> GpuBuffer {
    gpu.buffer("test", 4 * words as u64).expect("the buffer fits")
}

/// A buffer's first `len` values.
pub fn download<T: bytemuck::Pod>(gpu: &Gpu, buffer: &GpuBuffer, len: usize) -> Vec<T> {
    let mut values = block_on(gpu.download(buffer)).expect("the buffer can be read");
    values.truncate(len);
    values
}

/// Activations `[rows, cols]` without their padding, which must still be zero.
pub fn download_rows(gpu: &Gpu, buffer: &GpuBuffer, rows: usize, cols: usize) -> Vec<f32> {
    let padded: Vec<f32> = download(gpu, buffer, rows * stride(cols));
    let mut values = Vec::new();
    for row in padded.chunks_exact(stride(cols)) {
        assert!(row[cols..].iter().all(|&padding| padding == 0.0), "padding was written");
        values.extend_from_slice(&row[..cols]);
    }
    values
}

/// `len` values in −1..1, the same for the same seed.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Largest |actual − expected| ≤ `tolerance` · (1 + largest |expected|).
pub fn assert_close(what: &str, gpu: &Gpu, actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    for (index, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (a - e).abs();
        assert!(
            error <= tolerance * (1.0 + largest),
            "{what} on {:?}: [{index}] is {a}, its twin says {e}",
            gpu.target()
        );
    }
}
