//! The forward pass as lists of bound dispatches, in the order of the architecture.

use std::collections::HashSet;

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, dispatch::Dispatch, gpu::Gpu, source::KernelSource};
use crate::gpu::kernels::{
    ActivationFormat, AddExpertsRmsNorm, AddRmsNorm, Embed, RmsNorm, RopeKvUpdate,
};
use crate::gpu::model::attention::attention;
use crate::gpu::model::expert_buffers::ExpertBuffers;
use crate::gpu::model::expert_weights::GpuExperts;
use crate::gpu::model::experts::experts;
use crate::gpu::model::head::OutputHead;
use crate::gpu::model::layers::{Decoder, GpuLayer, LayerCache};
use crate::gpu::model::linear::SplitSum;
use crate::gpu::model::mlp::{mlp, plan_gate_up};
use crate::gpu::model::per_layer::{per_layer_inputs, take_per_layer_input};
use crate::gpu::model::persistent::PersistentLayers;
use crate::gpu::model::recorder::{Activations, OutputView, PlannedLinear, Recorder, shared_input};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::model::step::RowLimits;
use crate::gpu::model::step::StepShape;
use crate::gpu::model::workspace::Workspace;
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::config::ModelConfig;
use crate::model::weights::{LoadOptions, ModelWeights, PerLayerTables};

pub(in crate::gpu) type GpuWeights = ModelWeights<GpuMatrix, GpuBuffer>;

/// Bytes of the next matrix that are prefetched while one workgroup norms a row.
const PREFETCH_BYTES: usize = 8 << 20;

/// The input that the previous kernel made for a layer.
enum LayerInput {
    /// Its normed input in this format.
    Normed(ActivationFormat),
    /// Its q, k and v, which a persistent kernel made; or the final hidden state.
    QkvReady,
}

/// Dispatches from token ids to normed final hidden states.
pub(in crate::gpu) struct Trunk {
    steps: Vec<Dispatch>,
    /// Number of dispatches after which all keys and values are in the caches.
    to_keys: usize,
}

impl Trunk {
    /// The dispatches of a step. The layers without keys of their own run only if the step has
    /// outputs.
    pub fn steps(&self, has_outputs: bool) -> &[Dispatch] {
        if has_outputs { &self.steps } else { &self.steps[..self.to_keys] }
    }
}

/// A model's weights, caches and workspace on a device.
pub(in crate::gpu) struct Model {
    pub gpu: Gpu,
    decoder: Decoder,
    embed_tokens: GpuMatrix,
    per_layer: Option<PerLayerTables<GpuMatrix, GpuBuffer>>,
    /// `None` where it is tied to `embed_tokens`.
    lm_head: Option<GpuMatrix>,
    pub workspace: Workspace,
    /// `None` if decode runs no persistent kernels, or after a fault of one.
    pub persistent: Option<PersistentLayers>,
}

impl Model {
    pub fn new(
        gpu: Gpu,
        config: ModelConfig,
        weights: GpuWeights,
        caches: Vec<LayerCache>,
        workspace: Workspace,
        options: &LoadOptions,
    ) -> Result<Self> {
        let ModelWeights { embed_tokens, per_layer, layers, norm, lm_head } = weights;
        let layer = |(index, weights)| GpuLayer::new(&gpu, index, &config, weights);
        let layers = layers.into_iter().enumerate().map(layer).collect::<Result<_>>()?;
        let decoder = Decoder { config, layers, norm, caches, cache_type: options.cache_type };
        let persistent = None;
        Ok(Model { gpu, decoder, embed_tokens, per_layer, lm_head, workspace, persistent })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.decoder.config
    }

    /// Bytes of all KV caches.
    pub fn kv_bytes(&self) -> u64 {
        self.decoder.caches.iter().map(|cache| cache.k.size() + cache.v.size()).sum()
    }

    /// Bytes of weights that one token does not read.
    pub fn unread_bytes(&self) -> u64 {
        let table = self.per_layer.as_ref().map_or(0, |tables| tables.table.bytes());
        let experts = self.decoder.layers.iter().filter_map(|layer| layer.experts.as_ref());
        table + experts.map(GpuExperts::unread_bytes).sum::<u64>()
    }

    /// Chooses persistent kernels for decode if the device suits them. Compiles the kernels of
    /// decode, and on hardware those of prompts. If the first prompt waited for these, the card's
    /// clocks would fall.
    ///
    /// Errors: see [`PersistentLayers::find`]; a kernel that the driver refuses.
    pub async fn prepare_kernels(&mut self) -> Result<()> {
        let prompts = match self.compiles_ahead() {
            true => self.sources(StepShape::Prefill, StepShape::Decode, None)?,
            false => HashSet::new(),
        };
        let compile = |persistent: Option<&PersistentLayers>| {
            let mut sources = self.sources(StepShape::Decode, StepShape::Decode, persistent)?;
            sources.extend(prompts.iter().cloned());
            self.gpu.compile_together(sources)
        };
        let found = PersistentLayers::find(&self.gpu, &self.decoder, &self.workspace, |layers| {
            compile(Some(layers))
        });
        let persistent = found.await?;
        compile(persistent.as_ref())?;
        self.persistent = persistent;
        Ok(())
    }

    /// Whether kernels of later steps are compiled before those steps. On a software device that
    /// would take the cores from the steps themselves.
    #[cfg(not(target_arch = "wasm32"))]
    fn compiles_ahead(&self) -> bool {
        !self.gpu.facts().is_software()
    }

    /// Browsers have one thread, so a step waits for its own kernels alone.
    #[cfg(target_arch = "wasm32")]
    fn compiles_ahead(&self) -> bool {
        false
    }

    /// The kernels of steps of few rows, for up to `sequences` sequences. There are none if
    /// kernels are not compiled ahead.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn sources_of_few_rows(&self, sequences: usize) -> Result<HashSet<KernelSource>> {
        let mut sources = HashSet::new();
        if self.compiles_ahead() {
            let limits = RowLimits::of(self.gpu.target());
            for (trunk, head) in limits.shapes(self.workspace.row_capacity, sequences) {
                sources.extend(self.sources(trunk, head, None)?);
            }
        }
        Ok(sources)
    }

    /// The kernels of a trunk and a head.
    pub fn sources(
        &self,
        trunk: StepShape,
        head: StepShape,
        persistent: Option<&PersistentLayers>,
    ) -> Result<HashSet<KernelSource>> {
        let noting = |shape, over_outputs| {
            Recorder::for_sources(&self.gpu, &self.workspace, shape, over_outputs)
        };
        let (mut trunk, mut head) = (noting(trunk, false), noting(head, true));
        self.record_trunk(&mut trunk, persistent)?;
        self.record_head(&mut head)?;
        Ok(trunk.into_sources().into_iter().chain(head.into_sources()).collect())
    }

    /// The trunk for steps of a shape.
    pub fn trunk(&self, shape: StepShape) -> Result<Trunk> {
        let mut rec = Recorder::new(&self.gpu, &self.workspace, shape, false);
        let to_keys = self.record_trunk(&mut rec, self.persistent.as_ref())?;
        Ok(Trunk { steps: rec.steps, to_keys })
    }

    /// The head for output rows of a shape.
    pub fn head(&self, shape: StepShape) -> Result<OutputHead> {
        self.record_head(&mut Recorder::new(&self.gpu, &self.workspace, shape, true))
    }

    fn record_head(&self, rec: &mut Recorder<'_>) -> Result<OutputHead> {
        let lm_head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        OutputHead::record(rec, self.config(), lm_head)
    }

    /// Records the trunk. Returns the number of its dispatches up to the last layer with keys of
    /// its own.
    fn record_trunk<'a>(
        &'a self,
        rec: &mut Recorder<'a>,
        persistent: Option<&'a PersistentLayers>,
    ) -> Result<usize> {
        let (s, config) = (&self.workspace, self.config());
        self.embed(rec)?;
        let kernel = RmsNorm { n: config.hidden_size, eps: config.rms_norm_eps };
        let weight = ("weight", self.decoder.input_norm(0));
        rec.run(&kernel, &[("x", &s.x), weight, ("out", &s.normed)])?;
        if let (Some(tables), Some(input)) = (&self.per_layer, config.per_layer_input) {
            per_layer_inputs(rec, config, tables, input.size)?;
        }
        let persistent = persistent.filter(|_| rec.shape == StepShape::Decode);
        let mut input = LayerInput::Normed(ActivationFormat::F32);
        let mut qkv = self.plan_qkv(rec, 0);
        let mut to_keys = 0;
        for index in 0..self.decoder.layers.len() {
            let persistent = persistent.filter(|layers| layers.covers(index));
            let next_qkv = self.plan_qkv(rec, index + 1);
            input = self.layer(rec, index, input, [&qkv, &next_qkv], persistent)?;
            qkv = next_qkv;
            if index + 1 == self.decoder.caches.len() {
                to_keys = rec.steps.len();
            }
        }
        // Persistent kernels empty words for the next one, so all must run.
        Ok(if persistent.is_some() { rec.steps.len() } else { to_keys })
    }

    /// Plans q, k and v of layer `index`; none after the last layer.
    fn plan_qkv<'a>(&'a self, rec: &Recorder<'a>, index: usize) -> Vec<PlannedLinear<'a>> {
        let Some(layer) = self.decoder.layers.get(index) else { return Vec::new() };
        let stride = RopeKvUpdate::qkv_stride(&self.config().layers[index]);
        rec.plan_fused(&layer.qkv, OutputView { y: &self.workspace.qkv, stride, offset: 0 })
    }

    fn embed(&self, rec: &mut Recorder<'_>) -> Result<()> {
        let (s, table) = (rec.workspace, &self.embed_tokens);
        for part in &table.parts {
            let kernel = Embed {
                format: table.format,
                first_row: part.first_row,
                rows: part.rows,
                cols: table.cols,
                scale: self.config().embedding_scale(),
                interleaved16: table.interleaved16,
            };
            let [data, scales] = part.bindings();
            let token = [("rows", &s.rows), ("sampled", &s.sampled)];
            rec.run(&kernel, &[data, scales, token[0], token[1], ("x", &s.x)])?;
        }
        Ok(())
    }

    /// One decoder layer: reads its input, updates `x`, and writes the next layer's input.
    fn layer<'a>(
        &'a self,
        rec: &mut Recorder<'a>,
        index: usize,
        input: LayerInput,
        [qkv, next_qkv]: [&[PlannedLinear<'a>]; 2],
        persistent: Option<&'a PersistentLayers>,
    ) -> Result<LayerInput> {
        let (s, layer, hidden) =
            (rec.workspace, &self.decoder.layers[index], self.config().hidden_size);

        // Attention
        if let LayerInput::Normed(format) = input {
            rec.products(qkv, rec.activations(&s.normed, hidden, format))?;
        }
        let o_proj = rec.plan_sublayer(&layer.o_proj);
        let attended =
            attention(rec, &self.decoder, index, o_proj.plan.input, persistent.is_some())?;
        if let Some(persistent) = persistent {
            persistent.record(rec, &self.decoder, index)?;
            return Ok(LayerInput::QkvReady);
        }
        let output = o_proj.plan.sum;
        rec.products(&[o_proj], attended)?;
        let gate_up = plan_gate_up(rec, layer);
        let norms = [&layer.post_attention_norm, &layer.pre_feedforward_norm];
        let normed = self.add_rms_norm(rec, output, norms, &s.one, shared_input(&gate_up))?;

        // MLP
        rec.prefetch(&layer.gate_up[0].0, &layer.down_proj, PREFETCH_BYTES)?;
        let mut output = mlp(rec, &gate_up, &layer.down_proj, normed)?;
        if let (Some(weights), Some(buffers)) = (&layer.experts, &s.experts) {
            experts(rec, self.config(), weights, buffers)?;
            return self.end_with_experts(rec, index, output, (weights, buffers), next_qkv);
        }
        let mut post_norm = &layer.post_feedforward_norm;

        // Per-layer input
        if let Some(weights) = &layer.per_layer {
            output = take_per_layer_input(rec, self.config(), layer, weights, output)?;
            post_norm = &weights.norm;
        }

        let format = shared_input(next_qkv);
        let norms = [post_norm, self.decoder.input_norm(index + 1)];
        self.add_rms_norm(rec, output, norms, &layer.scalar_uniform, format)?;
        if let Some(next) = self.decoder.layers.get(index + 1) {
            rec.prefetch(&next.qkv[0].0, &next.o_proj, PREFETCH_BYTES)?;
        }
        Ok(LayerInput::Normed(format))
    }

    /// Outputs of MLP and experts → x; x, normed → the next layer's input.
    fn end_with_experts<'a>(
        &'a self,
        rec: &mut Recorder<'a>,
        index: usize,
        mlp: SplitSum,
        (weights, buffers): (&GpuExperts, &ExpertBuffers),
        next_qkv: &[PlannedLinear<'a>],
    ) -> Result<LayerInput> {
        let s = rec.workspace;
        let kernel = AddExpertsRmsNorm {
            n: self.config().hidden_size,
            eps: self.config().rms_norm_eps,
            parts: mlp.splits,
            part_stride: mlp.stride,
            top_k: weights.sizes.top_k,
            epilogue: shared_input(next_qkv),
        };
        let own = [
            ("x", &s.x),
            ("branch", &s.sublayer_output),
            ("results", &buffers.results),
            ("weights", &buffers.weights),
            ("norms", &weights.norms),
            ("next_weight", self.decoder.input_norm(index + 1)),
        ];
        rec.run_with_epilogue(&kernel, &own, kernel.epilogue, &s.normed)?;
        if let Some(next) = self.decoder.layers.get(index + 1) {
            rec.prefetch(&next.qkv[0].0, &next.o_proj, PREFETCH_BYTES)?;
        }
        Ok(LayerInput::Normed(kernel.epilogue))
    }

    /// Sublayer output → x; x, normed → the next sublayer's input in `format`.
    fn add_rms_norm<'a>(
        &self,
        rec: &mut Recorder<'a>,
        output: SplitSum,
        [post_norm, next_norm]: [&GpuBuffer; 2],
        scalar: &GpuBuffer,
        format: ActivationFormat,
    ) -> Result<Activations<'a>> {
        let (s, n) = (rec.workspace, self.config().hidden_size);
        let kernel = AddRmsNorm {
            n,
            eps: self.config().rms_norm_eps,
            parts: output.splits,
            part_stride: output.stride,
            epilogue: format,
        };
        let own = [
            ("x", &s.x),
            ("branch", &s.sublayer_output),
            ("post_weight", post_norm),
            ("next_weight", next_norm),
            ("layer", scalar),
        ];
        rec.run_with_epilogue(&kernel, &own, format, &s.normed)?;
        Ok(rec.activations(&s.normed, n, format))
    }
}
