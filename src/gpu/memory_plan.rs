//! Memory that a model takes on a device, and memory that is still free there.

use crate::error::Result;
use crate::gpu::backend::GpuBackend;
use crate::gpu::device::gpu::{Gpu, buffer_size};
use crate::gpu::kernels::AddExpertsRmsNorm;
use crate::gpu::model::capacity::{SizeSum, buffer_limit};
use crate::gpu::model::layers::LayerCache;
use crate::gpu::model::persistent::PersistentBuffers;
use crate::gpu::model::step::{logit_rows, max_step_tokens};
use crate::gpu::model::workspace::Workspace;
use crate::gpu::weights::repack::RepackSink;
use crate::memory::MemoryPlan;
use crate::model::config::{AttentionKind, LayerConfig, ModelConfig};
use crate::model::source::TensorSource;
use crate::model::weights::{self, LoadOptions, PlannedTensor};

impl GpuBackend {
    /// What [`GpuBackend::load`] would allocate.
    ///
    /// Errors: a tensor that the model needs is missing.
    pub fn plan(gpu: &Gpu, source: &dyn TensorSource, options: &LoadOptions) -> Result<MemoryPlan> {
        let (config, options) = (source.config(), &options.countable());
        let rows = max_step_tokens(gpu, options);
        let tensors = weights::planned_tensors(source, options.quantize)?;
        let mut plan = MemoryPlan {
            context_length: options.context_length,
            weight_bytes: tensors.iter().map(tensor_bytes).sum::<u64>() + table_bytes(config),
            kv_sliding_bytes: 0,
            kv_full_bytes: 0,
            scratch_bytes: 0,
            largest_buffer: 0,
            buffer_limit: buffer_limit(gpu),
        };
        for layer in config.cached_layers() {
            let (_, bytes) = LayerCache::size(layer, options, rows);
            let kind = match layer.attention {
                AttentionKind::Sliding { .. } => &mut plan.kv_sliding_bytes,
                AttentionKind::Full => &mut plan.kv_full_bytes,
            };
            *kind = kind.saturating_add(buffer_size(bytes).saturating_mul(2));
            plan.largest_buffer = plan.largest_buffer.max(bytes);
        }
        let (workspace, logit_rows) = (SizeSum::default(), logit_rows(config, options, rows));
        Workspace::new(&workspace, gpu.target(), config, options, rows, logit_rows)?;
        plan.largest_buffer = plan.largest_buffer.max(workspace.largest());
        PersistentBuffers::new(&workspace, gpu.target(), config)?;
        plan.scratch_bytes = workspace.bytes().max(RepackSink::bytes(gpu, &tensors));
        Ok(plan)
    }
}

fn tensor_bytes(tensor: &PlannedTensor) -> u64 {
    match (tensor.format, tensor.info.shape.as_slice()) {
        (Some(format), &[rows, cols]) => {
            let of_rows = |words: usize| buffer_size(4 * (words * rows) as u64);
            of_rows(format.data_words(cols)) + of_rows(format.scale_words(cols))
        }
        _ => buffer_size(4 * tensor.info.elements() as u64),
    }
}

/// Bytes of a layer's small buffers. They hold norms of q and k, rotary tables, the scalar, and
/// the first column of its per-layer input. With experts they have copies of norms.
fn table_bytes(config: &ModelConfig) -> u64 {
    let uniforms = if config.per_layer_input.is_some() { 32 } else { 16 };
    let of_layer =
        |dim: usize| buffer_size(8 * dim as u64) + buffer_size(2 * dim as u64) + uniforms;
    let norms = buffer_size(4 * AddExpertsRmsNorm::norm_words(config.hidden_size) as u64);
    let of_experts = |layer: &LayerConfig| if layer.experts.is_some() { norms } else { 0 };
    config.layers.iter().map(|layer| of_layer(layer.head_dim) + of_experts(layer)).sum()
}

impl Gpu {
    /// Bytes that the device can allocate now, at most `wanted`. Allocates them and frees them
    /// again.
    ///
    /// The result is too large with a driver that promises more than it has. With unified memory,
    /// compare it with the host's free memory.
    pub async fn free_bytes(&self, wanted: u64) -> u64 {
        const SMALLEST: u64 = 16 << 20;
        let mut chunk = self.facts().max_buffer_bytes.min(1 << 30);
        let (mut held, mut bytes) = (Vec::new(), 0);
        while bytes < wanted && chunk >= SMALLEST {
            let scope = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let descriptor = wgpu::BufferDescriptor {
                label: Some("probe"),
                size: chunk,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            };
            let buffer = self.device().create_buffer(&descriptor);
            match scope.pop().await {
                None => {
                    held.push(buffer);
                    bytes += chunk;
                }
                Some(_) => chunk = chunk / 2 / 16 * 16,
            }
        }
        bytes.min(wanted)
    }
}
