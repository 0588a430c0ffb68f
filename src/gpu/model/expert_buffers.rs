//! The activations of experts.

use crate::error::Result;
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::kernels::{ExpertsMatmul, ExpertsMatvec, SortExperts, stride};
use crate::gpu::model::allocator::Allocator;
use crate::model::config::ModelConfig;

/// Activations of experts, sized for the largest step.
pub(in crate::gpu) struct ExpertBuffers<B = GpuBuffer> {
    /// Normed inputs of experts and router `[rows, hidden]`.
    pub inputs: B,
    pub routed: B,
    /// `[rows, experts]`
    pub logits: B,
    /// The chosen experts and their weights `[rows, top_k]`.
    pub chosen: B,
    pub weights: B,
    /// See [`SortExperts`].
    pub pairs: B,
    pub tiles: B,
    /// `[rows · top_k, intermediate]`. Padding stays zero.
    pub hidden: B,
    /// `[rows · top_k, hidden]`
    pub results: B,
}

impl<B> ExpertBuffers<B> {
    /// `None` without experts.
    pub fn new<A: Allocator<Buffer = B>>(
        gpu: &A,
        config: &ModelConfig,
        rows: usize,
    ) -> Result<Option<Self>> {
        let Some(sizes) = config.experts() else { return Ok(None) };
        let words = |label: &str, rows: usize, cols: usize| {
            gpu.buffer(label, 4 * rows as u64 * cols as u64)
        };
        let hidden = stride(config.hidden_size);
        let pairs = rows * sizes.top_k;
        let tiles = |tile| SortExperts { experts: sizes, tile }.most_tiles(rows);
        let tiles = tiles(ExpertsMatmul::TILE).max(tiles(ExpertsMatvec::TILE));
        Ok(Some(ExpertBuffers {
            inputs: words("input of experts", rows, hidden)?,
            routed: words("input of the router", rows, hidden)?,
            logits: words("router logits", rows, stride(sizes.count))?,
            chosen: words("chosen experts", pairs, 1)?,
            weights: words("weights of experts", pairs, 1)?,
            pairs: words("sorted pairs", pairs, 1)?,
            tiles: words("tiles of pairs", tiles, 4)?,
            hidden: words("hidden of experts", pairs, stride(sizes.intermediate_size))?,
            results: words("results of experts", pairs, hidden)?,
        }))
    }
}
