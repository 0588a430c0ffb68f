//! Published architectures by name, for models without a checkpoint.

use super::{Architecture, AttentionKind, LayerConfig, ModelConfig, Rope};
use crate::{Error, Result};

/// Names that [`ModelConfig::named`] knows.
pub const NAMES: [&str; 3] = ["31b", "270m", "demo"];

/// Sizes of the family that do not run, and what of them is missing.
pub const UNSUPPORTED: [(&str, &str); 3] = [
    ("26b-a4b", "Gemma 4 26B-A4B: mixture of experts"),
    ("e4b", "Gemma 4 E4B: per-layer embeddings and KV sharing between layers"),
    ("e2b", "Gemma 4 E2B: per-layer embeddings, KV sharing between layers and a double-wide MLP"),
];

impl ModelConfig {
    /// Gemma 4 31B (`31b`), Gemma 3 270M (`270m`) or the embedded model (`demo`).
    ///
    /// Errors: [`Error::Unsupported`] for the sizes of [`UNSUPPORTED`], [`Error::Input`] for any other name.
    pub fn named(name: &str) -> Result<ModelConfig> {
        match name {
            "31b" => Ok(gemma4_31b()),
            "270m" => Ok(gemma3_270m()),
            "demo" => ModelConfig::from_hf_json(include_str!("../../assets/demo/config.json")),
            _ => Err(match UNSUPPORTED.iter().find(|(known, _)| *known == name) {
                Some((_, what)) => Error::Unsupported((*what).into()),
                None => Error::Input(format!("{name}: no such shape; there are {}", NAMES.join(", "))),
            }),
        }
    }

    /// Multiplications of a token's way through the layers' matrices.
    pub fn layer_multiplications(&self) -> u64 {
        let of_layer = |layer: &LayerConfig| {
            let projections = layer.n_heads * 2 + layer.n_kv_heads * if layer.k_eq_v { 1 } else { 2 };
            self.hidden_size * (projections * layer.head_dim + 3 * layer.intermediate_size)
        };
        self.layers.iter().map(|layer| of_layer(layer) as u64).sum()
    }
}

/// Every sixth layer attends to everything.
fn is_full(index: usize) -> bool {
    index % 6 == 5
}

fn gemma4_31b() -> ModelConfig {
    let layer = |index| {
        let full = is_full(index);
        let (head_dim, theta, rotated_pairs) = if full { (512, 1e6, 64) } else { (256, 1e4, 128) };
        LayerConfig {
            attention: if full { AttentionKind::Full } else { AttentionKind::Sliding { window: 1024 } },
            n_heads: 32,
            n_kv_heads: if full { 4 } else { 16 },
            head_dim,
            rope: Rope { theta, rotated_pairs, scale: 1.0 },
            k_eq_v: full,
            intermediate_size: 21504,
        }
    };
    ModelConfig {
        architecture: Architecture::Gemma4,
        vocab_size: 262144,
        hidden_size: 5376,
        layers: (0..60).map(layer).collect(),
        rms_norm_eps: 1e-6,
        final_logit_softcap: Some(30.0),
        attention_scale: 1.0,
        v_norm: true,
        layer_scalar: true,
        norm_weight_offset: 0.0,
        tie_word_embeddings: true,
        max_position_embeddings: 262144,
    }
}

fn gemma3_270m() -> ModelConfig {
    let layer = |index| {
        let full = is_full(index);
        LayerConfig {
            attention: if full { AttentionKind::Full } else { AttentionKind::Sliding { window: 512 } },
            n_heads: 4,
            n_kv_heads: 1,
            head_dim: 256,
            rope: Rope { theta: if full { 1e6 } else { 1e4 }, rotated_pairs: 128, scale: 1.0 },
            k_eq_v: false,
            intermediate_size: 2048,
        }
    };
    ModelConfig {
        architecture: Architecture::Gemma3,
        vocab_size: 262144,
        hidden_size: 640,
        layers: (0..18).map(layer).collect(),
        rms_norm_eps: 1e-6,
        final_logit_softcap: None,
        attention_scale: 1.0 / 16.0,
        v_norm: false,
        layer_scalar: false,
        norm_weight_offset: 0.0,
        tie_word_embeddings: true,
        max_position_embeddings: 32768,
    }
}
