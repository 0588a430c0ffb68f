//! Published architectures by name, for models without a checkpoint.

use crate::error::{Error, Result};
use crate::model::config::{AttentionKind, LayerConfig, ModelConfig, PerLayerInput, Rope};

/// Names that [`ModelConfig::named`] knows.
pub const NAMES: [&str; 5] = ["31b", "e4b", "e2b", "270m", "demo"];

/// Sizes of the family that are not supported, and the missing features.
pub const UNSUPPORTED: [(&str, &str); 1] = [("26b-a4b", "Gemma 4 26B-A4B: mixture of experts")];

impl ModelConfig {
    /// Gemma 4 31B (`31b`), E4B (`e4b`) or E2B (`e2b`), Gemma 3 270M (`270m`) or the embedded model
    /// (`demo`).
    ///
    /// Errors: [`Error::Unsupported`] for the sizes of [`UNSUPPORTED`], [`Error::Input`] for any
    /// other name.
    pub fn named(name: &str) -> Result<ModelConfig> {
        match name {
            "31b" => Ok(gemma4_31b()),
            "e4b" => Ok(GEMMA4_E4B.config()),
            "e2b" => Ok(GEMMA4_E2B.config()),
            "270m" => Ok(gemma3_270m()),
            "demo" => ModelConfig::from_hf_json(include_str!("../../../assets/demo/config.json")),
            _ => Err(match UNSUPPORTED.iter().find(|(known, _)| *known == name) {
                Some((_, what)) => Error::Unsupported((*what).into()),
                None => {
                    Error::Input(format!("{name}: no such shape; there are {}", NAMES.join(", ")))
                }
            }),
        }
    }

    /// Multiplications for one token in the layers' matrices. The projection into all layers'
    /// vectors counts too.
    pub fn layer_multiplications(&self) -> u64 {
        let per_layer = self.per_layer_input.map_or(0, |input| input.size);
        let of_layer = |layer: &LayerConfig| {
            let kv_projections = match (layer.kv_from, layer.k_eq_v) {
                (Some(_), _) => 0,
                (None, true) => 1,
                (None, false) => 2,
            };
            let projections = layer.n_heads * 2 + layer.n_kv_heads * kv_projections;
            self.hidden_size
                * (projections * layer.head_dim + 3 * layer.intermediate_size + 3 * per_layer)
        };
        self.layers.iter().map(|layer| of_layer(layer) as u64).sum()
    }
}

/// Every sixth layer has full attention.
fn is_full(index: usize) -> bool {
    index % 6 == 5
}

fn gemma4_31b() -> ModelConfig {
    let layer = |index| {
        let full = is_full(index);
        let (head_dim, theta, rotated_pairs) = if full { (512, 1e6, 64) } else { (256, 1e4, 128) };
        LayerConfig {
            attention: if full {
                AttentionKind::Full
            } else {
                AttentionKind::Sliding { window: 1024 }
            },
            n_heads: 32,
            n_kv_heads: if full { 4 } else { 16 },
            head_dim,
            rope: Rope { theta, rotated_pairs, scale: 1.0 },
            k_eq_v: full,
            intermediate_size: 21504,
            kv_from: None,
        }
    };
    ModelConfig {
        max_position_embeddings: 262144,
        ..ModelConfig::gemma4(262144, 5376, (0..60).map(layer).collect())
    }
}

/// The published differences between E4B and E2B.
struct Effective {
    hidden_size: usize,
    intermediate_size: usize,
    layers: usize,
    /// Every layer at a multiple of this period is full.
    period: usize,
    n_kv_heads: usize,
    /// Layers that share keys and values.
    shared: usize,
    double_wide: bool,
}

const GEMMA4_E4B: Effective = Effective {
    hidden_size: 2560,
    intermediate_size: 10240,
    layers: 42,
    period: 6,
    n_kv_heads: 2,
    shared: 18,
    double_wide: false,
};

const GEMMA4_E2B: Effective = Effective {
    hidden_size: 1536,
    intermediate_size: 6144,
    layers: 35,
    period: 5,
    n_kv_heads: 1,
    shared: 20,
    double_wide: true,
};

impl Effective {
    fn layer(&self, index: usize) -> LayerConfig {
        let is_full = |index: usize| index % self.period == self.period - 1;
        let own = self.layers - self.shared;
        let full = is_full(index);
        let (head_dim, theta, rotated_pairs) = if full { (512, 1e6, 64) } else { (256, 1e4, 128) };
        let shares = index >= own;
        LayerConfig {
            attention: if full {
                AttentionKind::Full
            } else {
                AttentionKind::Sliding { window: 512 }
            },
            n_heads: 8,
            n_kv_heads: self.n_kv_heads,
            head_dim,
            rope: Rope { theta, rotated_pairs, scale: 1.0 },
            k_eq_v: false,
            intermediate_size: self.intermediate_size
                * if shares && self.double_wide { 2 } else { 1 },
            kv_from: if shares { (0..own).rfind(|other| is_full(*other) == full) } else { None },
        }
    }

    fn config(&self) -> ModelConfig {
        ModelConfig {
            per_layer_input: Some(PerLayerInput { size: 256, vocab_size: 262144 }),
            ..ModelConfig::gemma4(
                262144,
                self.hidden_size,
                (0..self.layers).map(|index| self.layer(index)).collect(),
            )
        }
    }
}

fn gemma3_270m() -> ModelConfig {
    let layer = |index| {
        let full = is_full(index);
        LayerConfig {
            attention: if full {
                AttentionKind::Full
            } else {
                AttentionKind::Sliding { window: 512 }
            },
            n_heads: 4,
            n_kv_heads: 1,
            head_dim: 256,
            rope: Rope { theta: if full { 1e6 } else { 1e4 }, rotated_pairs: 128, scale: 1.0 },
            k_eq_v: false,
            intermediate_size: 2048,
            kv_from: None,
        }
    };
    ModelConfig::gemma3(262144, 640, (0..18).map(layer).collect())
}
