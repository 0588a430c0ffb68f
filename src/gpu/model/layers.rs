//! The decoder's layers on the device: their KV caches, and their weights in the form that the
//! forward pass needs.

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu};
use crate::gpu::kernels::{RopeKvUpdate, SdpaCoop, SplitAttention};
use crate::gpu::model::expert_weights::GpuExperts;
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::kv::{CacheType, cache_capacity};
use crate::model::weights::{LayerWeights, LoadOptions, PerLayerWeights};

/// The decoder's layers and their caches.
pub(in crate::gpu) struct Decoder {
    pub config: ModelConfig,
    pub layers: Vec<GpuLayer>,
    /// After the last layer.
    pub norm: GpuBuffer,
    /// Only of the layers with keys of their own, which are the first ones.
    pub caches: Vec<LayerCache>,
    pub cache_type: CacheType,
}

impl Decoder {
    /// The cache that layer `index` reads.
    pub fn cache(&self, index: usize) -> &LayerCache {
        &self.caches[self.config.kv_layer(index)]
    }

    /// Layer `index`'s attention, split over the keys, in steps of `rows` rows.
    pub fn split_attention(&self, index: usize, rows: usize) -> SplitAttention {
        let (layer, capacity) = (&self.config.layers[index], self.cache(index).capacity);
        SplitAttention::of(layer, &self.config, self.cache_type, capacity, rows)
    }

    /// Weights of the norm before layer `index`, or after the last one.
    pub fn input_norm(&self, index: usize) -> &GpuBuffer {
        self.layers.get(index).map_or(&self.norm, |layer| &layer.input_norm)
    }
}

/// KV cache of one layer, each `[slots, n_kv_heads, capacity, head_dim]`.
pub(in crate::gpu) struct LayerCache {
    pub k: GpuBuffer,
    pub v: GpuBuffer,
    /// Positions that a slot holds: a ring in sliding layers.
    pub capacity: usize,
}

impl LayerCache {
    /// Positions of a slot, and bytes of the keys, with steps of `rows` rows. The values take as
    /// many bytes.
    pub fn size(layer: &LayerConfig, options: &LoadOptions, rows: usize) -> (usize, u64) {
        // The capacity is a whole number of key tiles, so a ring may hold more than it needs.
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

/// Matrices with one input, each with the first column of its results. They are one matrix if they
/// could be fused.
pub(in crate::gpu) type FusedProjections = Vec<(GpuMatrix, usize)>;

/// Weights of a layer.
pub(in crate::gpu) struct GpuLayer {
    pub input_norm: GpuBuffer,
    /// q, then k unless it is another layer's, then v unless V is K.
    pub qkv: FusedProjections,
    pub o_proj: GpuMatrix,
    pub post_attention_norm: GpuBuffer,
    pub pre_feedforward_norm: GpuBuffer,
    /// gate and up.
    pub gate_up: FusedProjections,
    pub down_proj: GpuMatrix,
    /// `None` without experts.
    pub experts: Option<GpuExperts>,
    pub post_feedforward_norm: GpuBuffer,
    /// `None` without per-layer embeddings.
    pub per_layer: Option<GpuPerLayer>,
    /// The layer's output scalar, and a uniform of it.
    pub scalar: f32,
    pub scalar_uniform: GpuBuffer,
    /// q_norm and, if there is one, k_norm, one after the other.
    pub qk_norms: GpuBuffer,
    /// Rotary frequencies, see [`RopeKvUpdate::rope_frequencies`].
    pub rope_frequencies: GpuBuffer,
}

/// Weights with which a layer adds its per-layer input.
pub(in crate::gpu) struct GpuPerLayer {
    /// A single matrix.
    pub gate: FusedProjections,
    pub projection: GpuMatrix,
    pub norm: GpuBuffer,
    /// Uniform of u32: the first column of the layer's vector in a row of all layers' vectors.
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
        config: &ModelConfig,
        weights: LayerWeights<GpuMatrix, GpuBuffer>,
    ) -> Result<Self> {
        let layer = &config.layers[index];
        let norm_bytes = 4 * layer.head_dim as u64;
        let qk_norms = gpu.buffer("qk norms", 2 * norm_bytes)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&weights.q_norm, 0, &qk_norms, 0, norm_bytes);
        if let Some(k_norm) = &weights.k_norm {
            encoder.copy_buffer_to_buffer(k_norm, 0, &qk_norms, norm_bytes, norm_bytes);
        }
        gpu.queue().submit([encoder.finish()]);
        let experts = match (weights.experts, layer.experts) {
            (Some(experts), Some(sizes)) => {
                let end = (&weights.post_feedforward_norm, weights.scalar);
                Some(GpuExperts::new(gpu, sizes, config.hidden_size, experts, end)?)
            }
            _ => None,
        };
        let qkv = [Some(weights.q_proj), weights.k_proj, weights.v_proj];
        Ok(GpuLayer {
            input_norm: weights.input_norm,
            qkv: fuse(qkv.into_iter().flatten()),
            o_proj: weights.o_proj,
            post_attention_norm: weights.post_attention_norm,
            pre_feedforward_norm: weights.pre_feedforward_norm,
            gate_up: fuse([weights.gate_proj, weights.up_proj]),
            down_proj: weights.down_proj,
            experts,
            post_feedforward_norm: weights.post_feedforward_norm,
            per_layer: weights
                .per_layer
                .map(|weights| GpuPerLayer::new(gpu, index, weights))
                .transpose()?,
            scalar: weights.scalar,
            scalar_uniform: gpu.uniform("layer scalar", [weights.scalar.to_bits(), 0, 0, 0])?,
            qk_norms,
            rope_frequencies: gpu.buffer_of("rope", &RopeKvUpdate::rope_frequencies(layer))?,
        })
    }
}

/// Groups matrices of consecutive results as they were loaded: each by itself, or all fused in the
/// last.
fn fuse(matrices: impl IntoIterator<Item = GpuMatrix>) -> FusedProjections {
    let mut next = 0;
    let with_offset = |matrix: GpuMatrix| {
        next += matrix.rows;
        let offset = next - matrix.rows;
        (matrix, offset)
    };
    matrices.into_iter().filter(|matrix| !matrix.parts.is_empty()).map(with_offset).collect()
}
