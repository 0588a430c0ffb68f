//! The weights of a layer's experts on the device.

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu};
use crate::gpu::kernels::AddExpertsRmsNorm;
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::config::Experts;
use crate::model::weights::ExpertWeights;

/// Weights of a layer's experts.
pub(in crate::gpu) struct GpuExperts {
    pub sizes: Experts,
    pub pre_norm: GpuBuffer,
    pub router_scale: GpuBuffer,
    pub router: GpuMatrix,
    pub per_expert_scale: GpuBuffer,
    pub gate_up: GpuMatrix,
    pub down: GpuMatrix,
    /// See [`AddExpertsRmsNorm`].
    pub norms: GpuBuffer,
}

impl GpuExperts {
    /// `post_norm`: applied to the outputs of MLP and experts together. `scalar`: the layer's.
    pub fn new(
        gpu: &Gpu,
        sizes: Experts,
        hidden: usize,
        weights: ExpertWeights<GpuMatrix, GpuBuffer>,
        (post_norm, scalar): (&GpuBuffer, f32),
    ) -> Result<Self> {
        let bytes = 4 * AddExpertsRmsNorm::norm_stride(hidden) as u64;
        let words = AddExpertsRmsNorm::norm_words(hidden) as u64;
        let norms = gpu.buffer("norms of experts", 4 * words)?;
        gpu.queue().write_buffer(&norms, 3 * bytes, &scalar.to_le_bytes());
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let sources = [&weights.post_mlp_norm, &weights.post_norm, post_norm];
        for (source, at) in sources.into_iter().zip(0..) {
            encoder.copy_buffer_to_buffer(source, 0, &norms, at * bytes, 4 * hidden as u64);
        }
        gpu.queue().submit([encoder.finish()]);
        Ok(GpuExperts {
            sizes,
            pre_norm: weights.pre_norm,
            router_scale: weights.router_scale,
            router: weights.router,
            per_expert_scale: weights.per_expert_scale,
            gate_up: weights.gate_up,
            down: weights.down,
            norms,
        })
    }
}

impl GpuExperts {
    /// Bytes that one token does not read.
    pub fn unread_bytes(&self) -> u64 {
        self.sizes.unread(self.gate_up.bytes() + self.down.bytes())
    }
}
