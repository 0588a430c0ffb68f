//! A small random model in memory, for tests without golden logits.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use gemma4_wgpu::{
    Error, Result,
    model::{
        config::{AttentionKind, Experts, LayerConfig, ModelConfig, PerLayerInput, Rope},
        source::{LocalBoxFuture, TensorInfo, TensorSource},
        tensors::tensor_specs,
    },
    quant::Dtype,
};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// The window of [`RandomModel::small`]'s sliding layers.
pub const WINDOW: usize = 6;

/// A config with random f32 weights.
pub struct RandomModel {
    config: ModelConfig,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl RandomModel {
    /// A Gemma 4 model with two sliding layers and a full one whose V is K.
    /// No size is a multiple of 8.
    pub fn small() -> Self {
        let sliding = LayerConfig {
            attention: AttentionKind::Sliding { window: WINDOW },
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 10,
            rope: Rope { theta: 1e4, rotated_pairs: 5, scale: 1.0 },
            k_eq_v: false,
            intermediate_size: 50,
            kv_from: None,
            experts: None,
        };
        let full = LayerConfig {
            attention: AttentionKind::Full,
            n_kv_heads: 1,
            head_dim: 20,
            rope: Rope { theta: 1e6, rotated_pairs: 2, scale: 1.0 },
            k_eq_v: true,
            ..sliding.clone()
        };
        RandomModel::new(ModelConfig {
            max_position_embeddings: 4096,
            ..ModelConfig::gemma4(83, 36, vec![sliding.clone(), full, sliding])
        })
    }

    /// A small model with the architecture of E2B: per-layer embeddings and KV sharing.
    /// Two layers have no keys of their own, and their MLP is twice as wide.
    pub fn small_effective() -> Self {
        let mut config = RandomModel::small().config;
        config.layers.truncate(2);
        config.layers[1].k_eq_v = false;
        for own in 0..2 {
            let layer = &config.layers[own];
            let intermediate_size = 2 * layer.intermediate_size;
            config.layers.push(LayerConfig {
                kv_from: Some(own),
                intermediate_size,
                ..layer.clone()
            });
        }
        config.per_layer_input = Some(PerLayerInput { size: 14, vocab_size: 90 });
        RandomModel::new(config)
    }

    /// A small model with the architecture of 26B-A4B: 2 of 5 experts beside the MLP.
    pub fn small_experts() -> Self {
        let mut config = RandomModel::small().config;
        let experts = Experts { count: 5, top_k: 2, intermediate_size: 22 };
        config.layers.iter_mut().for_each(|layer| layer.experts = Some(experts));
        RandomModel::new(config)
    }

    /// Random weights for any config. The same config gives the same weights.
    pub fn new(config: ModelConfig) -> Self {
        let mut model = RandomModel { config: config.clone(), tensors: BTreeMap::new() };
        for tensor in tensor_specs(&config) {
            model.add(tensor.name, &tensor.shape);
        }
        model
    }

    /// Adds a random tensor. Matrices keep the magnitude of their input.
    /// Norms and scalars are between 0.5 and 1.5.
    fn add(&mut self, name: String, shape: &[usize]) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.tensors.len() as u64);
        let (center, spread) = match *shape {
            // Rounding must not close the gap between the last chosen and the first refused expert.
            [_, _] if name.ends_with("router.proj.weight") => (0.0, 20.0),
            [_, cols] => (0.0, (3.0 / cols as f32).sqrt()),
            _ => (1.0 - self.config.norm_weight_offset, 0.5),
        };
        let len = shape.iter().product();
        let values = (0..len).map(|_| center + spread * rng.random_range(-1.0..1.0)).collect();
        self.tensors.insert(name, (shape.to_vec(), values));
    }
}

impl TensorSource for RandomModel {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors
            .get(name)
            .map(|(shape, _)| TensorInfo { dtype: Dtype::F32, shape: shape.clone() })
    }

    fn read<'a>(
        &'a self,
        name: &'a str,
        rows: Range<usize>,
    ) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        Box::pin(async move {
            let (shape, values) =
                self.tensors.get(name).ok_or_else(|| Error::tensor(name, "missing"))?;
            let row = match shape[..] {
                [_, cols] => cols,
                _ => values.len(),
            };
            Ok(Cow::Borrowed(bytemuck::cast_slice(&values[rows.start * row..rows.end * row])))
        })
    }
}

/// `len` token ids of a vocabulary. The same seed gives the same ids.
pub fn random_tokens(vocab: usize, len: usize, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(0..vocab as u32)).collect()
}
