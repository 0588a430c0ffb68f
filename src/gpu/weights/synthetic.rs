//! Models of random weights, made on the device: for measuring shapes without a download.

use std::{borrow::Cow, cell::Cell, ops::Range};

use crate::{
    error::{Error, Result},
    gpu::{
        device::{buffers::GpuBuffer, gpu::Gpu, grid::StepSize},
        kernels::{Fill, Kernel},
        weights::{
            fused::FusedAllocator,
            matrix::{GpuMatrix, MatrixMemory},
        },
    },
    model::{
        config::ModelConfig,
        matrix_reader::MatrixReader,
        source::{LocalBoxFuture, TensorInfo, TensorSource},
        tensors::{self, ModelTensor, Role},
        weights::{PlannedTensor, WeightStore},
    },
    quant::{Dtype, PackFormat},
};

/// Standard deviation of attention's scores, as the norms of trained models give it to random q and
/// k (see docs/performance.md). With norm weights of one hardly more than one key would count.
const SCORE_DEVIATION: f32 = 4.0;

/// A checkpoint without files: layers in Q4_0 and the embedding in Q6_K, as in Google's GGUF files.
/// Norm weights are one, except for q and k.
pub struct SyntheticSource {
    config: ModelConfig,
    embedding: Dtype,
    /// Of the table of per-layer embeddings.
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

    /// The same with an embedding in Q8_0, for backends that have no groups of 16.
    pub fn with_int8_embedding(config: ModelConfig) -> Self {
        SyntheticSource { config, embedding: Dtype::Q8_0, per_layer: Dtype::Q8_0 }
    }

    /// How a tensor of this role is stored.
    fn dtype(&self, role: Role) -> Dtype {
        match role {
            Role::TokenEmbedding | Role::OutputHead => self.embedding,
            Role::PerLayerTable => self.per_layer,
            Role::Linear | Role::PerLayerProjection => Dtype::Q4_0,
            Role::Norm | Role::HeadNorm | Role::Scalar => Dtype::F32,
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

    /// Norm weights and scalars; matrices exist on the device alone.
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

/// Makes matrices on the device instead of reading them.
pub(in crate::gpu) struct SyntheticStore {
    pub gpu: Gpu,
    pub bytes: u64,
    fused: FusedAllocator,
    seed: Cell<u32>,
}

impl SyntheticStore {
    /// A store for these tensors.
    pub fn new(gpu: Gpu, tensors: &[PlannedTensor], seed: u32) -> Self {
        let fused = FusedAllocator::new(&gpu, tensors, MatrixMemory::Device);
        SyntheticStore { gpu, bytes: 0, fused, seed: Cell::new(seed) }
    }

    fn fill(&self, buffer: &GpuBuffer, random: bool, value: u32) -> Result<()> {
        let kernel = Fill { random };
        let words = self.gpu.uniform("fill", [(buffer.size() / 4) as u32, value, 0, 0])?;
        let source = kernel.source(self.gpu.target());
        let dispatch = self.gpu.dispatch(
            &source,
            &[("words", buffer), ("fill", &words)],
            kernel.grid(self.gpu.target()),
        )?;
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        dispatch.encode(&mut encoder.begin_compute_pass(&Default::default()), StepSize::default());
        self.gpu.queue().submit([encoder.finish()]);
        Ok(())
    }
}

impl WeightStore for SyntheticStore {
    type Matrix = GpuMatrix;
    type Vector = GpuBuffer;

    async fn matrix(&mut self, reader: MatrixReader<'_>) -> Result<GpuMatrix> {
        let (matrix, first) = self.fused.begin(&self.gpu, &reader)?;
        self.bytes += reader.rows as u64 * matrix.format.row_bytes(matrix.cols) as u64;
        let matrix = self.fused.end(matrix, first + reader.rows);
        // With this scale uniform quants make rows of length one: activations keep their size.
        let deviation = match matrix.format {
            PackFormat::Int { bits: 4, .. } => 4.6,
            PackFormat::Int { bits: 6, .. } => 18.5,
            _ => 73.9,
        };
        let scale =
            half::f16::from_f32(1.0 / (deviation * (matrix.cols as f32).sqrt())).to_bits() as u32;
        for part in &matrix.parts {
            self.seed.set(self.seed.get().wrapping_add(1));
            self.fill(&part.data, true, self.seed.get())?;
            self.fill(&part.scales, false, scale | scale << 16)?;
        }
        self.gpu.wait()?;
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<GpuBuffer> {
        self.bytes += 4 * values.len() as u64;
        self.gpu.buffer_of(name, bytemuck::cast_slice(&values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::native_format;

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
