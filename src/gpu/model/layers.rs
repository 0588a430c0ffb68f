//! What a layer keeps on the device: its KV cache and its weights as the forward pass wants them.

use crate::{
    backend::cache_capacity,
    config::LayerConfig,
    error::Result,
    gpu::{
        device::{buffers::GpuBuffer, gpu::Gpu},
        kernels::{RopeKvUpdate, SdpaCoop},
        weights::matrix::GpuMatrix,
    },
    weights::{CacheType, LayerWeights, LoadOptions, PerLayerWeights},
};

/// KV cache of one layer, each `[slots, n_kv_heads, capacity, head_dim]`.
pub(in crate::gpu) struct LayerCache {
    pub k: GpuBuffer,
    pub v: GpuBuffer,
    /// Positions that a slot holds: a ring in sliding layers.
    pub capacity: usize,
}

impl LayerCache {
    /// Positions of a slot, and bytes of the keys (of the values as many), with steps of `rows`
    /// rows.
    pub fn size(layer: &LayerConfig, options: &LoadOptions, rows: usize) -> (usize, u64) {
        // Whole tiles of keys; a ring may hold more than it needs.
        let needed = cache_capacity(layer, options.context_length, rows);
        let capacity = needed.checked_next_multiple_of(SdpaCoop::KEYS).unwrap_or(needed);
        let element = match options.cache_type {
            CacheType::F16 => 2,
            CacheType::F32 => 4,
        };
        let bytes = [capacity, options.max_sequences, layer.n_kv_heads, layer.head_dim, element]
            .iter()
            .fold(1u64, |product, &factor| product.saturating_mul(factor as u64));
        (capacity, bytes)
    }

    pub fn new(gpu: &Gpu, layer: &LayerConfig, options: &LoadOptions, rows: usize) -> Result<Self> {
        let (capacity, bytes) = Self::size(layer, options, rows);
        let label = format!("KV cache of one layer for {} positions", options.context_length);
        Ok(LayerCache { k: gpu.buffer(&label, bytes)?, v: gpu.buffer(&label, bytes)?, capacity })
    }
}

/// Matrices with one input, with the columns of the result at which theirs begin: one matrix where
/// they could be joined.
pub(in crate::gpu) type FusedProjections = Vec<(GpuMatrix, usize)>;

/// Weights of a layer.
pub(in crate::gpu) struct GpuLayer {
    pub input_norm: GpuBuffer,
    /// q and, unless they are another layer's, k and, unless V is K, v.
    pub qkv: FusedProjections,
    pub o_proj: GpuMatrix,
    pub post_attention_norm: GpuBuffer,
    pub pre_feedforward_norm: GpuBuffer,
    /// gate and up.
    pub gate_up: FusedProjections,
    pub down_proj: GpuMatrix,
    pub post_feedforward_norm: GpuBuffer,
    /// With per-layer embeddings.
    pub per_layer: Option<GpuPerLayer>,
    /// Uniform of f32: the layer's output scalar, and which sets of words a chained kernel uses and
    /// empties.
    pub scalar: GpuBuffer,
    /// q_norm and, if there is one, k_norm, one after the other.
    pub qk_norms: GpuBuffer,
    /// Cosines and sines, see [`RopeKvUpdate::turns`].
    pub rope_frequencies: GpuBuffer,
}

/// How a layer takes in its vector.
pub(in crate::gpu) struct GpuPerLayer {
    /// One matrix.
    pub gate: FusedProjections,
    pub projection: GpuMatrix,
    pub norm: GpuBuffer,
    /// Uniform of u32: the first column of the layer's vector.
    pub columns: GpuBuffer,
}

impl GpuPerLayer {
    fn new(
        gpu: &Gpu,
        index: usize,
        weights: PerLayerWeights<GpuMatrix, GpuBuffer>,
    ) -> Result<Self> {
        let PerLayerWeights { gate, projection, norm } = weights;
        let columns = gpu.uniform("per-layer columns", [(index * gate.rows) as u32, 0, 0, 0])?;
        Ok(GpuPerLayer { gate: vec![(gate, 0)], projection, norm, columns })
    }
}

impl GpuLayer {
    pub fn new(
        gpu: &Gpu,
        index: usize,
        layer: &LayerConfig,
        weights: LayerWeights<GpuMatrix, GpuBuffer>,
    ) -> Result<Self> {
        let norm_bytes = 4 * layer.head_dim as u64;
        let qk_norms = gpu.buffer("qk norms", 2 * norm_bytes)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&weights.q_norm, 0, &qk_norms, 0, norm_bytes);
        if let Some(k_norm) = &weights.k_norm {
            encoder.copy_buffer_to_buffer(k_norm, 0, &qk_norms, norm_bytes, norm_bytes);
        }
        gpu.queue().submit([encoder.finish()]);
        let qkv = [Some(weights.q_proj), weights.k_proj, weights.v_proj];
        Ok(GpuLayer {
            input_norm: weights.input_norm,
            qkv: join(qkv.into_iter().flatten()),
            o_proj: weights.o_proj,
            post_attention_norm: weights.post_attention_norm,
            pre_feedforward_norm: weights.pre_feedforward_norm,
            gate_up: join([weights.gate_proj, weights.up_proj]),
            down_proj: weights.down_proj,
            post_feedforward_norm: weights.post_feedforward_norm,
            per_layer: weights
                .per_layer
                .map(|weights| GpuPerLayer::new(gpu, index, weights))
                .transpose()?,
            scalar: gpu.uniform("layer scalar", [weights.scalar.to_bits(), 0, 0, 0])?,
            qk_norms,
            rope_frequencies: gpu.buffer_of("rope", &RopeKvUpdate::turns(layer))?,
        })
    }
}

/// Matrices whose results lie one after another, as they were loaded: each by itself, or all in the
/// last.
fn join(matrices: impl IntoIterator<Item = GpuMatrix>) -> FusedProjections {
    let mut first = 0;
    let place = |matrix: GpuMatrix| {
        first += matrix.rows;
        let offset = first - matrix.rows;
        (matrix, offset)
    };
    matrices.into_iter().filter(|matrix| !matrix.parts.is_empty()).map(place).collect()
}
