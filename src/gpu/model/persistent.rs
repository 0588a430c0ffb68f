//! Persistent kernels of decode. Each runs from one layer's attention to the next layer's, see
//! [`PersistentLayer`].

use crate::error::{Error, Result};
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu, grid::StepSize, tuning::KernelTarget};
use crate::gpu::kernels::{Kernel, Linear, PerLayerProducts, PersistentLayer};
use crate::gpu::model::layers::{Decoder, FusedProjections, GpuLayer, GpuPerLayer};
use crate::gpu::model::linear::linears;
use crate::gpu::model::recorder::Recorder;
use crate::gpu::model::workspace::{Allocator, Workspace};
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::config::{LayerConfig, ModelConfig};

/// Buffers that only a model's persistent kernels use.
pub(in crate::gpu) struct PersistentBuffers<B = GpuBuffer> {
    /// [`PersistentLayer::SETS`] sets of words by which workgroups exchange results.
    exchange: B,
    /// A word: not 0 if a workgroup waited in vain.
    fault: B,
    /// A uniform of f32 for each layer: its scalar, the set to use, the set to empty.
    layers: Vec<B>,
}

impl<B> PersistentBuffers<B> {
    /// `None` where no persistent kernels are used.
    pub fn new<A: Allocator<Buffer = B>>(
        gpu: &A,
        target: &KernelTarget,
        config: &ModelConfig,
    ) -> Result<Option<Self>> {
        if !target.tuning.persistent {
            return Ok(None);
        }
        let exchange = 4 * (PersistentLayer::SETS * set_words(config)) as u64;
        let layers = config.layers.iter().map(|_| gpu.uniform("persistent layer", [0; 4]));
        Ok(Some(PersistentBuffers {
            exchange: gpu.buffer("exchange", exchange)?,
            fault: gpu.buffer("fault", 16)?,
            layers: layers.collect::<Result<_>>()?,
        }))
    }
}

/// The persistent kernels of a model. A probe has shown that all their workgroups run at once.
pub(in crate::gpu) struct PersistentLayers {
    /// By layer; `None` if no such kernel fits its matrices.
    pub kernels: Vec<Option<PersistentLayer>>,
    buffers: PersistentBuffers,
}

impl PersistentLayers {
    /// Plans the kernels and probes how many of their workgroups run at the same time. `compile`
    /// compiles the kernels of decode. Returns `None` if persistent kernels are not used.
    ///
    /// Errors, if the user asked for persistent kernels: the model has none, or too few workgroups
    /// run at once.
    pub async fn find(
        gpu: &Gpu,
        decoder: &Decoder,
        workspace: &Workspace,
        compile: impl Fn(&Self) -> Result<()>,
    ) -> Result<Option<Self>> {
        let refuse = |reason: String| match gpu.tuning().persistent && gpu.requires_persistent() {
            true => Err(Error::Device(format!("{reason}: leave out persistent=on"))),
            false => Ok(None),
        };
        let Some(buffers) = PersistentBuffers::new(gpu, gpu.target(), &decoder.config)? else {
            return Ok(None);
        };
        let mut persistent = PersistentLayers { kernels: Vec::new(), buffers };
        for &workgroups in gpu.tuning().persistent_workgroups {
            persistent.kernels = kernels(gpu, decoder, workgroups);
            if persistent.kernels.iter().flatten().count() < 2 {
                let needs = "integers, with dp4a=on and subgroups of 8, no experts";
                let what = "the model has no two layers for persistent kernels";
                return refuse(format!("{what} ({needs})"));
            }
            // All kernels compile in parallel, and the persistent ones take longest.
            compile(&persistent)?;
            if persistent.probe(gpu, decoder, workspace).await? {
                log::info!("persistent kernels between layers in {workgroups} workgroups");
                return Ok(Some(persistent));
            }
        }
        refuse(format!("{} does not run workgroups at the same time", gpu.facts()))
    }

    /// Whether the kernel after layer `index`'s attention is persistent.
    pub fn covers(&self, index: usize) -> bool {
        self.kernels[index].is_some()
    }

    /// A word that is not 0 after a fault. Results after a fault are wrong.
    pub fn fault(&self) -> &GpuBuffer {
        &self.buffers.fault
    }

    /// Records the kernel after layer `index`'s attention, if there is one.
    pub fn record<'a>(
        &'a self,
        rec: &mut Recorder<'a>,
        decoder: &'a Decoder,
        index: usize,
    ) -> Result<()> {
        match &self.kernels[index] {
            Some(kernel) => rec.run(kernel, &self.bindings(decoder, rec.workspace, index)),
            None => Ok(()),
        }
    }

    fn bindings<'a>(
        &'a self,
        decoder: &'a Decoder,
        s: &'a Workspace,
        index: usize,
    ) -> Vec<(&'static str, &'a GpuBuffer)> {
        let (layer, next) = (&decoder.layers[index], decoder.layers.get(index + 1));
        let matrices = [&layer.o_proj, &layer.gate_up[0].0, &layer.down_proj];
        let [o, gate_up, down] = matrices.map(|matrix| &matrix.parts[0]);
        let mut bindings = vec![
            ("o_data", &o.data),
            ("o_scales", &o.scales),
            ("gate_up_data", &gate_up.data),
            ("gate_up_scales", &gate_up.scales),
            ("down_data", &down.data),
            ("down_scales", &down.scales),
            ("partial_outputs", &s.partial_attention),
            ("softmax_stats", &s.attention_stats),
            ("rows", &s.rows),
            ("post_attention", &layer.post_attention_norm),
            ("pre_feedforward", &layer.pre_feedforward_norm),
            ("post_feedforward", &layer.post_feedforward_norm),
            ("next_input", decoder.input_norm(index + 1)),
            ("stream", &s.x),
            ("exchange", &self.buffers.exchange),
            ("y", if next.is_some() { &s.qkv } else { &s.normed }),
            ("fault", &self.buffers.fault),
            ("layer", &self.buffers.layers[index]),
        ];
        if let Some(weights) = &layer.per_layer {
            bindings.extend(input_bindings(weights, s));
        }
        bindings.extend(next.into_iter().flat_map(qkv_bindings));
        bindings
    }

    /// Writes each kernel's scalar and sets to its uniform, and empties all sets.
    fn write_uniforms(&self, gpu: &Gpu, decoder: &Decoder) {
        let indices: Vec<usize> =
            (0..self.kernels.len()).filter(|index| self.covers(*index)).collect();
        for (&index, sets) in indices.iter().zip(rotate_sets(indices.len())) {
            let [used, emptied] = sets.map(|set| set as f32);
            let words = [decoder.layers[index].scalar, used, emptied, 0.0];
            let uniform = &self.buffers.layers[index];
            gpu.queue().write_buffer(uniform, 0, bytemuck::cast_slice(&words));
        }
        self.empty_sets(gpu);
    }

    fn empty_sets(&self, gpu: &Gpu) {
        let exchange = &self.buffers.exchange;
        let empty = vec![PersistentLayer::SENTINEL; exchange.size() as usize / 4];
        gpu.queue().write_buffer(exchange, 0, bytemuck::cast_slice(&empty));
    }

    /// Whether all workgroups of the first kernel run at the same time. Runs that kernel once.
    async fn probe(&self, gpu: &Gpu, decoder: &Decoder, workspace: &Workspace) -> Result<bool> {
        let Some((index, kernel)) =
            self.kernels.iter().enumerate().find_map(|(i, kernel)| Some((i, kernel.as_ref()?)))
        else {
            return Ok(false);
        };
        self.write_uniforms(gpu, decoder);
        let buffers = self.bindings(decoder, workspace, index);
        let (source, grid) = (kernel.source(gpu.target()), kernel.grid(gpu.target()));
        let dispatch = gpu.dispatch(&source, &buffers, grid)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        dispatch.encode(&mut encoder.begin_compute_pass(&Default::default()), StepSize::default());
        gpu.queue().submit([encoder.finish()]);
        let words: Vec<u32> = gpu.download(self.fault()).await?;
        gpu.queue().write_buffer(self.fault(), 0, &[0; 16]);
        self.empty_sets(gpu);
        Ok(words[0] == 0)
    }
}

/// What the kernel binds for a per-layer input.
fn input_bindings<'a>(
    weights: &'a GpuPerLayer,
    s: &'a Workspace,
) -> [(&'static str, &'a GpuBuffer); 7] {
    let (gate, projection) = (&weights.gate[0].0.parts[0], &weights.projection.parts[0]);
    [
        ("input_gate_data", &gate.data),
        ("input_gate_scales", &gate.scales),
        ("input_projection_data", &projection.data),
        ("input_projection_scales", &projection.scales),
        ("vectors", &s.per_layer),
        ("post_input", &weights.norm),
        ("place", &weights.columns),
    ]
}

/// What the kernel binds for the next layer's q, k and v.
fn qkv_bindings(next: &GpuLayer) -> Vec<(&'static str, &GpuBuffer)> {
    let names = match next.qkv.len() {
        1 => &[["qkv_data", "qkv_scales"]][..],
        _ => &[["q_data", "q_scales"], ["k_data", "k_scales"], ["v_data", "v_scales"]],
    };
    let parts = next.qkv.iter().map(|(matrix, _)| &matrix.parts[0]);
    names
        .iter()
        .zip(parts)
        .flat_map(|([data, scales], part)| [(*data, &part.data), (*scales, &part.scales)])
        .collect()
}

/// Words of a set, for all layers of a model.
fn set_words(config: &ModelConfig) -> usize {
    let widest =
        |width: fn(&LayerConfig) -> usize| config.layers.iter().map(width).max().unwrap_or(0);
    let attention = widest(|layer| layer.n_heads * layer.head_dim);
    PersistentLayer::set_words(
        config.hidden_size,
        attention,
        widest(|layer| layer.intermediate_size),
        config.per_layer_input.map_or(0, |input| input.size),
    )
}

/// The kernels of all layers in `workgroups` workgroups, if the device and the matrices allow.
/// Where weights are interleaved, others are taken only if the user asked for persistent kernels.
/// Nobody has measured those.
fn kernels(gpu: &Gpu, decoder: &Decoder, workgroups: usize) -> Vec<Option<PersistentLayer>> {
    let is_wanted = |kernel: &PersistentLayer| {
        gpu.requires_persistent() || !gpu.tuning().interleave_weights || kernel.is_interleaved()
    };
    let runs =
        |kernel: &PersistentLayer| kernel.can_run(gpu.target(), gpu.facts()) && is_wanted(kernel);
    let layers = 0..decoder.layers.len();
    layers.map(|index| kernel(decoder, index, workgroups).filter(runs)).collect()
}

fn kernel(decoder: &Decoder, index: usize, workgroups: usize) -> Option<PersistentLayer> {
    let layer = &decoder.layers[index];
    if layer.experts.is_some() {
        return None;
    }
    let next = decoder.layers.get(index + 1);
    let qkv = next.map_or(&[][..], |next| &next.qkv);
    let qkv = qkv.iter().map(|(matrix, offset)| linear_at(matrix, *offset));
    let per_layer = match &layer.per_layer {
        Some(weights) => Some(PerLayerProducts {
            gate: linear(single(&weights.gate)?)?,
            projection: linear(&weights.projection)?,
        }),
        None => None,
    };
    Some(PersistentLayer {
        split: decoder.split_attention(index, 1),
        o: linear(&layer.o_proj)?,
        gate_up: linear(single(&layer.gate_up)?)?,
        down: linear(&layer.down_proj)?,
        qkv: qkv.collect::<Option<_>>()?,
        per_layer,
        eps: decoder.config.rms_norm_eps,
        set_words: set_words(&decoder.config),
        workgroups,
    })
}

/// The one matrix into which projections were fused.
fn single(projections: &FusedProjections) -> Option<&GpuMatrix> {
    match projections.as_slice() {
        [(matrix, _)] => Some(matrix),
        _ => None,
    }
}

fn linear(matrix: &GpuMatrix) -> Option<Linear> {
    linear_at(matrix, 0)
}

/// The product of a whole matrix, with results from column `offset` on.
fn linear_at(matrix: &GpuMatrix, offset: usize) -> Option<Linear> {
    match linears(matrix, 0, offset).as_slice() {
        &[linear] => Some(linear),
        _ => None,
    }
}

/// The set that each of `count` kernels (at least two) uses, and the set that it empties. A kernel
/// empties the set of the next kernel. The last one empties the set of the next step's first
/// kernel. If the number of kernels is odd, the last kernel has a set of its own.
fn rotate_sets(count: usize) -> Vec<[usize; 2]> {
    let set = |index: usize| {
        if index + 1 == count && count % 2 == 1 { PersistentLayer::SETS - 1 } else { index % 2 }
    };
    (0..count).map(|index| [set(index), set((index + 1) % count)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_is_emptied_by_the_kernel_before_its_user() {
        for count in 2..10 {
            let sets = rotate_sets(count);
            for (index, [used, emptied]) in sets.iter().enumerate() {
                assert_ne!(used, emptied, "{index} of {count}");
                assert_eq!(*emptied, sets[(index + 1) % count][0], "{index} of {count}");
                assert!(*used < PersistentLayer::SETS);
            }
        }
    }
}
