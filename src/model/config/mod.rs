//! [`ModelConfig`]: every number of the architecture, per layer, read once.

pub(crate) mod hf;
mod hf_class;
mod hf_rope;
pub mod shapes;
pub(crate) mod validate;

use crate::{Error, Result};

/// The model family, which decides the few steps that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Gemma3,
    Gemma4,
}

/// Which keys a layer's queries see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKind {
    /// A query at position p sees keys in (p − window, p].
    Sliding { window: usize },
    /// A query at position p sees keys in [0, p].
    Full,
}

/// Rotary position embedding, half-split ("neox") form: dim i pairs with i + head_dim/2. The angle
/// of pair i at position p is `p / scale · theta^(−2i/head_dim)` for i < `rotated_pairs`, else 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    pub theta: f32,
    /// Pairs that rotate: head_dim/2 for full rotary, fewer for "proportional".
    pub rotated_pairs: usize,
    /// Linear position scaling (`rope_type: linear`); 1.0 for none.
    pub scale: f32,
}

impl Rope {
    /// Inverse frequencies, shape `[head_dim/2]`, with zero for pairs that do not rotate.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|i| {
                if i >= self.rotated_pairs {
                    return 0.0;
                }
                let exponent = -2.0 * i as f64 / head_dim as f64;
                ((self.theta as f64).powf(exponent) / self.scale as f64) as f32
            })
            .collect()
    }
}

/// One decoder layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    pub attention: AttentionKind,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub rope: Rope,
    /// No v_proj: V is the k_proj output before k_norm and RoPE.
    pub k_eq_v: bool,
    pub intermediate_size: usize,
    /// The earlier layer whose keys and values this layer uses. `None` for layers with their own,
    /// which all come before those that share.
    pub kv_from: Option<usize>,
    /// A mixture of experts beside the dense MLP.
    pub experts: Option<Experts>,
}

/// The experts of a layer. Each is a small MLP, and a router chooses some for every token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    pub count: usize,
    /// Experts of one token.
    pub top_k: usize,
    pub intermediate_size: usize,
}

impl Experts {
    /// Of bytes of all experts, those that one token does not read.
    pub fn unread(&self, bytes: u64) -> u64 {
        bytes / self.count as u64 * (self.count - self.top_k) as u64
    }
}

/// Each layer's vectors for tokens, an input besides the residual stream. These are the "per-layer
/// embeddings" of E4B and E2B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerLayerInput {
    /// Elements of a layer's vector.
    pub size: usize,
    /// Rows of the table. There is at least one for each token.
    pub vocab_size: usize,
}

/// A Gemma text model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: Vec<LayerConfig>,
    pub rms_norm_eps: f32,
    /// Logits become `c·tanh(logits/c)`.
    pub final_logit_softcap: Option<f32>,
    /// Factor on q·k; 1.0 in Gemma 4, `query_pre_attn_scalar^-0.5` in Gemma 3.
    pub attention_scale: f32,
    /// V is RMS-normed without a weight (Gemma 4).
    pub v_norm: bool,
    /// Each layer's output is multiplied by a stored scalar (Gemma 4).
    pub layer_scalar: bool,
    /// Added to every stored norm weight: 1.0 for Gemma 3 in Hugging Face form, else 0.
    pub norm_weight_offset: f32,
    /// lm_head shares the embedding's weights.
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
    pub per_layer_input: Option<PerLayerInput>,
}

impl ModelConfig {
    /// A model of these sizes, with the common values of its family. The head is tied to the
    /// embedding, and norm weights are used as stored.
    pub fn new(
        architecture: Architecture,
        vocab_size: usize,
        hidden_size: usize,
        layers: Vec<LayerConfig>,
    ) -> ModelConfig {
        let gemma4 = architecture == Architecture::Gemma4;
        let head_dim = layers.first().map_or(256, |layer| layer.head_dim);
        ModelConfig {
            architecture,
            vocab_size,
            hidden_size,
            layers,
            rms_norm_eps: 1e-6,
            final_logit_softcap: gemma4.then_some(30.0),
            attention_scale: if gemma4 { 1.0 } else { (head_dim as f32).sqrt().recip() },
            v_norm: gemma4,
            layer_scalar: gemma4,
            norm_weight_offset: 0.0,
            tie_word_embeddings: true,
            max_position_embeddings: if gemma4 { 131_072 } else { 32_768 },
            per_layer_input: None,
        }
    }

    /// [`ModelConfig::new`] of a Gemma 4.
    pub fn gemma4(vocab_size: usize, hidden_size: usize, layers: Vec<LayerConfig>) -> ModelConfig {
        ModelConfig::new(Architecture::Gemma4, vocab_size, hidden_size, layers)
    }

    /// [`ModelConfig::new`] of a Gemma 3.
    pub fn gemma3(vocab_size: usize, hidden_size: usize, layers: Vec<LayerConfig>) -> ModelConfig {
        ModelConfig::new(Architecture::Gemma3, vocab_size, hidden_size, layers)
    }

    /// Factor on embeddings before layer 0: sqrt(hidden_size).
    pub fn embedding_scale(&self) -> f32 {
        (self.hidden_size as f32).sqrt()
    }

    /// The experts of the layers that have some.
    pub fn experts(&self) -> Option<Experts> {
        self.layers.iter().find_map(|layer| layer.experts)
    }

    /// Layers with their own keys and values, which come first.
    pub fn cached_layers(&self) -> &[LayerConfig] {
        let count = self.layers.iter().take_while(|layer| layer.kv_from.is_none()).count();
        &self.layers[..count]
    }

    /// The layer whose keys and values layer `index` attends to.
    pub fn kv_layer(&self, index: usize) -> usize {
        self.layers[index].kv_from.unwrap_or(index)
    }

    /// Columns of the table of per-layer embeddings: all layers' vectors, one after another. 0
    /// without them.
    pub fn per_layer_columns(&self) -> usize {
        self.per_layer_input.map_or(0, |input| input.size * self.layers.len())
    }
}

/// Makes the last `shared` layers use keys and values of an earlier layer. It is the last layer of
/// the same kind with its own, as in transformers (`kv_sharing_modes`).
///
/// Errors: [`Error::Config`] with `key` if there is none.
pub(crate) fn share_kv(layers: &mut [LayerConfig], shared: usize, key: &str) -> Result<()> {
    let fault = |reason: &str| Error::Config(format!("{key} = {shared}: {reason}"));
    let own =
        layers.len().checked_sub(shared).ok_or_else(|| fault("more than there are layers"))?;
    let is_full = |layer: &LayerConfig| layer.attention == AttentionKind::Full;
    let (first, last) = layers.split_at_mut(own);
    for layer in last {
        let source = first.iter().rposition(|other| is_full(other) == is_full(layer));
        layer.kv_from = Some(
            source.ok_or_else(|| fault("a layer has none of its kind before it to share with"))?,
        );
        layer.k_eq_v = false;
    }
    Ok(())
}
