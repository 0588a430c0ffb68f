//! [`ModelConfig`]: every number of the architecture, per layer, read once.

mod gguf;
mod hf;
pub(crate) mod json;
pub mod shapes;
mod validate;

pub(crate) use gguf::FREQUENCY_FACTORS;
use validate::MAX_LAYERS;

/// The model family, which decides the few steps that differ between them.
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

/// Rotary position embedding, half-split ("neox") form: dim i pairs with i + head_dim/2.
/// The angle of pair i at position p is `p / scale · theta^(−2i/head_dim)` for i < `rotated_pairs`, else 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    pub theta: f32,
    /// Pairs that turn; head_dim/2 for full rotary, fewer for "proportional".
    pub rotated_pairs: usize,
    /// Linear position scaling (`rope_type: linear`); 1.0 for none.
    pub scale: f32,
}

impl Rope {
    /// Inverse frequencies, shape `[head_dim/2]`, zero for the pairs that do not turn.
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
}

/// A dense Gemma text model.
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
}

impl ModelConfig {
    /// Factor on embeddings before layer 0: sqrt(hidden_size).
    pub fn embedding_scale(&self) -> f32 {
        (self.hidden_size as f32).sqrt()
    }
}
