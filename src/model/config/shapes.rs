//! Published architectures by name, for models without a checkpoint.

use crate::error::{Error, Result};
use crate::model::config::{AttentionKind, Experts, LayerConfig, ModelConfig, PerLayerInput, Rope};

/// Names that [`ModelConfig::named`] knows.
pub const NAMES: [&str; 7] = ["31b", "26b-a4b", "12b", "e4b", "e2b", "270m", "demo"];

impl ModelConfig {
    /// Gemma 4 31B (`31b`), 26B-A4B (`26b-a4b`), 12B (`12b`), E4B (`e4b`) or E2B (`e2b`). Also
    /// Gemma 3 270M (`270m`) and the embedded model (`demo`).
    ///
    /// Errors: [`Error::Input`] for any other name.
    pub fn named(name: &str) -> Result<ModelConfig> {
        match name {
            "31b" => Ok(GEMMA4_31B.config()),
            "26b-a4b" => Ok(GEMMA4_26B_A4B.config()),
            "12b" => Ok(GEMMA4_12B.config()),
            "e4b" => Ok(GEMMA4_E4B.config()),
            "e2b" => Ok(GEMMA4_E2B.config()),
            "270m" => Ok(gemma3_270m()),
            "demo" => ModelConfig::from_hf_json(include_str!("../../../assets/demo/config.json")),
            _ => {
                Err(Error::Input(format!("{name}: no such shape; there are {}", NAMES.join(", "))))
            }
        }
    }

    /// Multiplications for one token in the layers' matrices. The projection into all layers'
    /// vectors counts too, and the experts that a token chooses.
    pub fn layer_multiplications(&self) -> u64 {
        let per_layer = self.per_layer_input.map_or(0, |input| input.size);
        let of_layer = |layer: &LayerConfig| {
            let kv_projections = match (layer.kv_from, layer.k_eq_v) {
                (Some(_), _) => 0,
                (None, true) => 1,
                (None, false) => 2,
            };
            let projections = layer.n_heads * 2 + layer.n_kv_heads * kv_projections;
            let experts = layer
                .experts
                .map_or(0, |experts| experts.count + 3 * experts.top_k * experts.intermediate_size);
            let mlp = 3 * layer.intermediate_size + experts;
            self.hidden_size * (projections * layer.head_dim + mlp + 3 * per_layer)
        };
        self.layers.iter().map(|layer| of_layer(layer) as u64).sum()
    }
}

/// Every sixth layer has full attention.
fn is_full(index: usize) -> bool {
    index % 6 == 5
}

/// The published differences between the models with a window of 1024.
struct Large {
    hidden_size: usize,
    intermediate_size: usize,
    layers: usize,
    n_heads: usize,
    /// Of sliding and of full layers.
    n_kv_heads: [usize; 2],
    experts: Option<Experts>,
}

const GEMMA4_31B: Large = Large {
    hidden_size: 5376,
    intermediate_size: 21504,
    layers: 60,
    n_heads: 32,
    n_kv_heads: [16, 4],
    experts: None,
};

const GEMMA4_26B_A4B: Large = Large {
    hidden_size: 2816,
    intermediate_size: 2112,
    layers: 30,
    n_heads: 16,
    n_kv_heads: [8, 2],
    experts: Some(Experts { count: 128, top_k: 8, intermediate_size: 704 }),
};

const GEMMA4_12B: Large = Large {
    hidden_size: 3840,
    intermediate_size: 15360,
    layers: 48,
    n_heads: 16,
    n_kv_heads: [8, 1],
    experts: None,
};

impl Large {
    fn layer(&self, index: usize) -> LayerConfig {
        let full = is_full(index);
        let (head_dim, theta, rotated_pairs) = if full { (512, 1e6, 64) } else { (256, 1e4, 128) };
        LayerConfig {
            attention: if full {
                AttentionKind::Full
            } else {
                AttentionKind::Sliding { window: 1024 }
            },
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads[full as usize],
            head_dim,
            rope: Rope { theta, rotated_pairs, scale: 1.0 },
            k_eq_v: full,
            intermediate_size: self.intermediate_size,
            kv_from: None,
            experts: self.experts,
        }
    }

    fn config(&self) -> ModelConfig {
        let layers = (0..self.layers).map(|index| self.layer(index)).collect();
        ModelConfig {
            max_position_embeddings: 262144,
            ..ModelConfig::gemma4(262144, self.hidden_size, layers)
        }
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
            experts: None,
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
            experts: None,
        }
    };
    ModelConfig::gemma3(262144, 640, (0..18).map(layer).collect())
}
