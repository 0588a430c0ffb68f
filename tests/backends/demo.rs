//! The embedded model: its properties, and its held-out perplexity on every backend.

use crate::common;
use gemma4_wgpu::{
    checkpoint::Checkpoint,
    gpu::KernelOptions,
    model::{config::AttentionKind, source::TensorSource},
    quant::Dtype,
};

#[test]
fn heldout_perplexity_on_cpu() {
    common::demo::assert_perplexity(&common::cpu);
}

/// Takes a minute or two on software adapters.
#[test]
fn heldout_perplexity_on_wgpu() {
    common::demo::assert_perplexity(&common::gpu(KernelOptions::default()));
}

/// Longer than the window. The whole excerpt would take MLX a minute on a CPU.
#[cfg(feature = "mlx")]
#[test]
fn heldout_perplexity_on_mlx() {
    let expected = common::demo::perplexity(&common::cpu, 500, 256);
    let found = common::demo::perplexity(&common::mlx, 500, 100);
    assert!((found / expected - 1.0).abs() < 0.0005, "{found}, on the CPU {expected}");
}

/// The model has the 31B model's kinds of layers. Its size is limited, as the program embeds it.
#[test]
fn architecture_and_size() {
    let checkpoint = Checkpoint::demo().unwrap();
    let config = checkpoint.config();
    let full: Vec<bool> =
        config.layers.iter().map(|layer| layer.attention == AttentionKind::Full).collect();
    assert_eq!(full, [false, false, false, false, false, true]);
    assert_eq!((config.layers[0].head_dim, config.layers[5].head_dim), (256, 512));
    assert!(config.layers[5].k_eq_v && !config.layers[0].k_eq_v);
    assert!(
        config.final_logit_softcap.is_some() && config.layer_scalar && config.tie_word_embeddings
    );
    assert_eq!(config.layers[0].attention, AttentionKind::Sliding { window: 256 });
    assert!(config.max_position_embeddings > 256);
    let q_proj = checkpoint.info("layers.0.self_attn.q_proj.weight").unwrap();
    assert!(matches!(q_proj.dtype, Dtype::Packed(_)), "{q_proj:?}");
    let bytes: u64 = std::fs::read_dir("assets/demo")
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 8_000_000, "{bytes}");
}
