//! The embedded model with other kernels than the adapter's facts choose.

mod common;

use common::demo::perplexity;
use gemma4_wgpu::gpu::KernelOptions;

#[test]
fn heldout_perplexity_in_other_variants() {
    let (expected, tokens) = perplexity(&common::cpu, 130);
    for kernels in [
        KernelOptions { dp4a: Some(true), ..KernelOptions::default() },
        KernelOptions { subgroups: Some(false), ..KernelOptions::default() },
    ] {
        let found = perplexity(&common::gpu(kernels), 130);
        assert_eq!(found.1, tokens);
        assert!((found.0 / expected - 1.0).abs() < 0.005, "{kernels:?}: {}, on the CPU {expected}", found.0);
    }
}
