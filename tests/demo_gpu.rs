//! The embedded model on the wgpu backend, with the kernels that the adapter's facts choose and with the others.

mod common;

use gemma4_wgpu::gpu::KernelOptions;

#[test]
fn heldout_perplexity() {
    common::demo::assert_perplexity(&common::gpu(KernelOptions::default()));
}

#[test]
fn heldout_perplexity_with_int8_activations() {
    common::demo::assert_perplexity(&common::gpu(KernelOptions { dp4a: Some(true), ..KernelOptions::default() }));
}

#[test]
fn heldout_perplexity_without_subgroups() {
    common::demo::assert_perplexity(&common::gpu(KernelOptions { subgroups: Some(false), ..KernelOptions::default() }));
}
