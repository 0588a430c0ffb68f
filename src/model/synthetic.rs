//! Checkpoints without files, for measurements without a download.

use std::{borrow::Cow, ops::Range};

use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::source::{LocalBoxFuture, TensorInfo, TensorSource};
use crate::model::tensors::{self, ModelTensor, Role};
use crate::quant::Dtype;

/// Standard deviation of attention scores in trained models (see docs/performance.md). Norm weights
/// of one would concentrate attention on about one key.
const SCORE_DEVIATION: f32 = 4.0;

/// A checkpoint without files: layers in Q4_0 and the embedding in Q6_K, as in Google's GGUF files.
/// Norm weights are one, except for q and k.
pub struct SyntheticSource {
    config: ModelConfig,
    embedding: Dtype,
    /// The type of the table of per-layer embeddings.
    per_layer: Dtype,
}

impl SyntheticSource {
    /// The embedding is Q8_0 where rows do not fill Q6_K's blocks.
    pub fn new(config: ModelConfig) -> Self {
        let dtype = |cols: usize| {
            if cols.is_multiple_of(Dtype::Q6_K.block_len()) { Dtype::Q6_K } else { Dtype::Q8_0 }
        };
        let (embedding, per_layer) = (dtype(config.hidden_size), dtype(config.per_layer_columns()));
        SyntheticSource { config, embedding, per_layer }
    }

    /// The same with an embedding in Q8_0, for backends without groups of 16.
    pub fn with_int8_embedding(config: ModelConfig) -> Self {
        SyntheticSource { config, embedding: Dtype::Q8_0, per_layer: Dtype::Q8_0 }
    }

    /// The storage type of a tensor of this role.
    fn dtype(&self, role: Role) -> Dtype {
        match role {
            Role::TokenEmbedding | Role::OutputHead => self.embedding,
            Role::PerLayerTable => self.per_layer,
            Role::Linear | Role::PerLayerProjection | Role::ExpertMatrices => Dtype::Q4_0,
            // Random floats would not be finite.
            Role::Router => Dtype::Q8_0,
            Role::Norm | Role::HeadNorm | Role::Scalar | Role::RouterScale => Dtype::F32,
        }
    }
}

impl SyntheticSource {
    /// Weights of q's and k's norms that give scores the deviation [`SCORE_DEVIATION`].
    fn qk_norm(&self, head_dim: usize) -> f32 {
        let of_ones = self.config.attention_scale * (head_dim as f32).sqrt();
        (SCORE_DEVIATION / of_ones).sqrt()
    }
}

impl TensorSource for SyntheticSource {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let tensor = tensors::find(&self.config, name)?;
        Some(TensorInfo { dtype: self.dtype(tensor.role), shape: tensor.shape })
    }

    /// Norm weights and scalars. Matrices exist only on the device.
    fn read<'a>(
        &'a self,
        name: &'a str,
        _: Range<usize>,
    ) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        let values = match tensors::find(&self.config, name) {
            Some(ModelTensor { role, shape, .. }) if self.dtype(role) == Dtype::F32 => {
                let value = if role == Role::HeadNorm { self.qk_norm(shape[0]) } else { 1.0 };
                Ok(Cow::Owned(value.to_le_bytes().repeat(shape.iter().product())))
            }
            _ => Err(Error::tensor(name, "a synthetic matrix cannot be read")),
        };
        Box::pin(async { values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{PackFormat, native_format};

    #[test]
    fn embeddings_are_held_in_6_bits_where_rows_fill_blocks() {
        let embedding = |source: SyntheticSource| {
            native_format(source.info("embed_tokens.weight").unwrap().dtype)
        };
        let of = |name| ModelConfig::named(name).unwrap();
        assert_eq!(embedding(SyntheticSource::new(of("31b"))).to_string(), "int6 g16");
        assert_eq!(embedding(SyntheticSource::new(of("270m"))), PackFormat::INT8);
        assert_eq!(embedding(SyntheticSource::with_int8_embedding(of("31b"))), PackFormat::INT8);
    }
}
