//! The MLX backend: its operations against their CPU twins, and the contract of all backends.

#[path = "../common/mod.rs"]
mod common;
mod exceptions;
mod experts;
mod formats;
mod ops;
mod process;
mod tensors;

/// As for [`common::cpu`], but sums have another order.
const TOLERANCE: f32 = 3e-3;

contract_tests!(TOLERANCE, common::mlx, "mlx");

/// Per-layer embeddings, and layers with KV sharing.
mod effective {
    use super::*;

    contract_tests!(TOLERANCE, common::contract::effective(common::mlx), "mlx");
}

mod goldens {
    use crate::golden_tests;

    golden_tests!(2e-3, crate::common::mlx);
}

/// bf16 as on a Mac, which has 8 significant bits where f32 has 24.
#[test]
fn bf16_activations_keep_the_perplexity() {
    let bf16: common::Make = &|source, options| {
        Ok(Box::new(common::load_mlx(source, options, gemma4_wgpu::mlx::Activations::Bf16)?))
    };
    let expected = common::demo::perplexity(&common::cpu, 300, 100);
    let found = common::demo::perplexity(bf16, 300, 50);
    assert!((found / expected - 1.0).abs() < 0.02, "{found}, on the CPU {expected}");
}
