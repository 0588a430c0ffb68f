//! The embedded model with other kernels than the adapter's facts choose.

mod common;

use common::demo::perplexity;
use gemma4_wgpu::gpu::KernelOptions;

/// Past the window of 256, a token at a time: the way of decoding, whose products take int8 activations. Weights that are
/// fetched ahead change nothing.
#[test]
fn int8_activations_keep_the_perplexity() {
    let expected = perplexity(&common::cpu, 300, 100);
    let kernels = KernelOptions { dp4a: Some(true), prefetch: Some(true), ..KernelOptions::default() };
    let found = perplexity(&common::gpu(kernels), 300, 1);
    assert!((found / expected - 1.0).abs() < 0.005, "{found}, on the CPU {expected}");
}

#[test]
fn workgroup_memory_does_as_well_as_subgroups() {
    let expected = perplexity(&common::cpu, 130, 100);
    let kernels = KernelOptions { subgroups: Some(false), ..KernelOptions::default() };
    let found = perplexity(&common::gpu(kernels), 130, 65);
    assert!((found / expected - 1.0).abs() < 0.001, "{found}, on the CPU {expected}");
}
