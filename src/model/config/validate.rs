//! Bounds for every [`ModelConfig`], from any file.

use crate::error::{Error, Result};
use crate::model::config::{AttentionKind, LayerConfig, ModelConfig};

/// More layers than any model of the family has.
pub(crate) const MAX_LAYERS: usize = 1024;

const MAX_VOCAB: usize = 1 << 24;
const MAX_HIDDEN: usize = 1 << 17;
const MAX_PER_LAYER: usize = 1 << 14;
const MAX_INTERMEDIATE: usize = 1 << 20;
/// Kernels count the pairs of each expert in workgroup memory.
const MAX_EXPERTS: usize = 1 << 10;
/// Kernels keep a token's experts in registers.
const MAX_TOP_K: usize = 64;
const MAX_HEADS: usize = 1 << 12;
const MAX_HEAD_DIM: usize = 1 << 12;
/// Positions are u32 on devices, and additions to them must not overflow.
const MAX_POSITIONS: usize = 1 << 30;

impl ModelConfig {
    /// Errors with [`Error::Config`] if a number is zero, out of bounds or contradicts another.
    pub fn validate(&self) -> Result<()> {
        in_bounds("vocab_size", self.vocab_size, MAX_VOCAB)?;
        in_bounds("hidden_size", self.hidden_size, MAX_HIDDEN)?;
        in_bounds("number of layers", self.layers.len(), MAX_LAYERS)?;
        in_bounds("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS)?;
        positive("rms_norm_eps", self.rms_norm_eps)?;
        positive("attention scale", self.attention_scale)?;
        self.final_logit_softcap.map_or(Ok(()), |cap| positive("final_logit_softcapping", cap))?;
        for (index, layer) in self.layers.iter().enumerate() {
            layer.validate().map_err(|error| match error {
                Error::Config(reason) => Error::Config(format!("layer {index}: {reason}")),
                other => other,
            })?;
        }
        self.validate_sharing()?;
        let differs =
            |layer: &LayerConfig| layer.experts.is_some_and(|own| Some(own) != self.experts());
        if let Some(index) = self.layers.iter().position(differs) {
            return Err(Error::Config(format!("the experts of layer {index} differ from others")));
        }
        self.per_layer_input.map_or(Ok(()), |input| {
            in_bounds("per-layer input size", input.size, MAX_PER_LAYER)?;
            in_bounds("per-layer vocabulary", input.vocab_size, MAX_VOCAB)?;
            match input.vocab_size < self.vocab_size {
                true => Err(Error::Config(format!(
                    "{} rows of per-layer embeddings for {} tokens",
                    input.vocab_size, self.vocab_size
                ))),
                false => Ok(()),
            }
        })
    }

    /// Layers that share keys and values come last. They use those of a similar layer with its own.
    fn validate_sharing(&self) -> Result<()> {
        let own = self.cached_layers();
        for (index, layer) in self.layers.iter().enumerate().skip(own.len()) {
            let fault = |reason: String| Err(Error::Config(format!("layer {index}: {reason}")));
            let source =
                layer.kv_from.and_then(|source| own.get(source).map(|like| (source, like)));
            let Some((source, like)) = source else {
                let reason =
                    "it comes after a layer that shares keys, and shares none that there are";
                return fault(reason.into());
            };
            let sizes = |layer: &LayerConfig| (layer.attention, layer.n_kv_heads, layer.head_dim);
            if sizes(like) != sizes(layer) {
                return fault(format!(
                    "its attention differs from that of layer {source}, whose keys it shares"
                ));
            }
        }
        Ok(())
    }
}

impl LayerConfig {
    fn validate(&self) -> Result<()> {
        in_bounds("number of heads", self.n_heads, MAX_HEADS)?;
        in_bounds("number of KV heads", self.n_kv_heads, MAX_HEADS)?;
        in_bounds("head_dim", self.head_dim, MAX_HEAD_DIM)?;
        in_bounds("intermediate_size", self.intermediate_size, MAX_INTERMEDIATE)?;
        if let Some(experts) = self.experts {
            in_bounds("number of experts", experts.count, MAX_EXPERTS)?;
            in_bounds("expert intermediate_size", experts.intermediate_size, MAX_INTERMEDIATE)?;
            in_bounds("experts of a token", experts.top_k, MAX_TOP_K)?;
            if experts.top_k > experts.count {
                return Err(Error::Config(format!(
                    "a token has {} experts of {}",
                    experts.top_k, experts.count
                )));
            }
        }
        if let AttentionKind::Sliding { window } = self.attention {
            in_bounds("sliding_window", window, MAX_POSITIONS)?;
        }
        let (heads, kv_heads) = (self.n_heads, self.n_kv_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::Config(format!(
                "{heads} heads cannot share {kv_heads} KV heads evenly"
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::Config(format!("head_dim = {} is odd", self.head_dim)));
        }
        if self.rope.rotated_pairs > self.head_dim / 2 {
            return Err(Error::Config(format!(
                "RoPE turns {} pairs of {}",
                self.rope.rotated_pairs,
                self.head_dim / 2
            )));
        }
        positive("RoPE theta", self.rope.theta)?;
        positive("RoPE factor", self.rope.scale)
    }
}

fn in_bounds(what: &str, value: usize, max: usize) -> Result<()> {
    match value {
        0 => Err(Error::Config(format!("{what} is 0"))),
        value if value > max => Err(Error::Config(format!("{what} = {value} is more than {max}"))),
        _ => Ok(()),
    }
}

fn positive(what: &str, value: f32) -> Result<()> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(Error::Config(format!("{what} = {value} is not a positive number"))),
    }
}
