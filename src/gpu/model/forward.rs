//! The forward pass as lists of bound dispatches, in the order of the architecture.

use std::collections::HashSet;

use crate::{
    config::{LayerConfig, ModelConfig},
    error::Result,
    gpu::{
        device::{
            buffers::GpuBuffer,
            dispatch::{Dispatch, KernelSource},
            gpu::Gpu,
        },
        kernels::{
            Argmax, ArgmaxParts, Embed, Emit, GatherRows, NormAdd, NormAddNorm, PerLayerGate,
            PerLayerInputs, RawHeads, RmsNorm, RopeKvUpdate, Sample, Sdpa, SdpaCombine, SdpaCoop,
            SdpaDecode, SplitAttention, TopKParts, stride,
        },
        model::{
            layers::{GpuLayer, GpuPerLayer, LayerCache},
            outputs::LogitsUse,
            recorder::{Activations, OutputView, Recorder},
            workspace::Workspace,
        },
        weights::matrix::GpuMatrix,
    },
    weights::{CacheType, LoadOptions, ModelWeights, PerLayerTables},
};

pub(in crate::gpu) type GpuWeights = ModelWeights<GpuMatrix, GpuBuffer>;

/// Logits that one pass of the lm_head makes at most: bounds the buffer that holds them.
const LOGIT_BYTES: usize = 64 << 20;

/// Bytes of the next matrix that are brought into the cache while one workgroup norms a row, and
/// while a token is attended.
const NORM_PREFETCH_BYTES: usize = 8 << 20;
const ATTENTION_PREFETCH_BYTES: usize = 4 << 20;

/// Rows of logits that one pass of the head makes, where steps have `rows` rows.
pub(in crate::gpu) fn logit_rows(
    config: &ModelConfig,
    options: &LoadOptions,
    rows: usize,
) -> usize {
    (LOGIT_BYTES / (4 * config.vocab_size)).clamp(1, rows.max(options.max_sequences))
}

/// How a step's matrices and attention are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::gpu) enum StepShape {
    /// One token: matrix-vector products.
    Decode,
    /// One token each of at most `n` sequences: one read of the weights serves them all.
    DecodeBatch(usize),
    /// At most `n` tokens, several of which belong to one sequence.
    ShortPrefill(usize),
    /// Many tokens of several sequences.
    MixedBatch,
    /// Many tokens of one sequence: attention takes them in tiles.
    Prefill,
}

/// What a layer finds.
enum LayerInput {
    /// Its normed input in this format.
    Normed(Emit),
    /// Its q, k and v: the kernel before it made them.
    QkvReady,
}

/// Dispatches from token ids to normed final hidden states.
pub(in crate::gpu) struct Trunk {
    steps: Vec<Dispatch>,
    /// Those that keys and values of all layers come from.
    to_keys: usize,
}

impl Trunk {
    /// What a step runs: layers that make no keys only if something is wanted of it.
    pub fn steps(&self, wanted: bool) -> &[Dispatch] {
        if wanted { &self.steps } else { &self.steps[..self.to_keys] }
    }
}

/// Dispatches from final hidden states to logits, and from logits to tokens.
pub(in crate::gpu) struct OutputHead {
    pub logits: Vec<Dispatch>,
    argmax: Vec<Dispatch>,
    sample: Vec<Dispatch>,
}

impl OutputHead {
    /// What chooses tokens after the logits.
    pub fn choice(&self, usage: &LogitsUse) -> &[Dispatch] {
        match usage {
            LogitsUse::Logits => &[],
            LogitsUse::Greedy => &self.argmax,
            LogitsUse::Sample(_) => &self.sample,
        }
    }
}

/// A model's weights, caches and workspace on a device.
pub(in crate::gpu) struct Model {
    pub gpu: Gpu,
    pub config: ModelConfig,
    embed_tokens: GpuMatrix,
    per_layer: Option<PerLayerTables<GpuMatrix, GpuBuffer>>,
    pub layers: Vec<GpuLayer>,
    pub norm: GpuBuffer,
    /// `None` where it is tied to `embed_tokens`.
    lm_head: Option<GpuMatrix>,
    /// Of the layers that have keys of their own, which are the first ones.
    pub caches: Vec<LayerCache>,
    pub workspace: Workspace,
    pub cache_type: CacheType,
    /// Rows of logits that one pass of the head makes.
    pub logit_rows: usize,
    pub kv_bytes: u64,
    /// Workgroups of [`Chain`], which were seen to run at the same time; `None` where it is not
    /// used.
    pub persistent_workgroups: Option<usize>,
}

impl Model {
    /// KV caches for all layers that have one: the first thing to allocate, because a context that
    /// does not fit should fail before gigabytes of weights are read.
    pub fn caches(
        gpu: &Gpu,
        config: &ModelConfig,
        options: &LoadOptions,
        rows: usize,
    ) -> Result<Vec<LayerCache>> {
        config
            .cached_layers()
            .iter()
            .map(|layer| LayerCache::new(gpu, layer, options, rows))
            .collect()
    }

    pub fn new(
        gpu: Gpu,
        config: ModelConfig,
        weights: GpuWeights,
        caches: Vec<LayerCache>,
        workspace: Workspace,
        options: &LoadOptions,
        rows: usize,
    ) -> Result<Self> {
        let ModelWeights { embed_tokens, per_layer, layers, norm, lm_head } = weights;
        let layers = config.layers.iter().zip(layers).enumerate();
        let layer = |(index, (layer, weights))| GpuLayer::new(&gpu, index, layer, weights);
        let layers = layers.map(layer).collect::<Result<_>>()?;
        let logit_rows = logit_rows(&config, options, rows);
        let kv_bytes = caches.iter().map(|cache| cache.k.size() + cache.v.size()).sum();
        let cache_type = options.cache_type;
        Ok(Model {
            gpu,
            config,
            embed_tokens,
            per_layer,
            layers,
            norm,
            lm_head,
            caches,
            workspace,
            cache_type,
            logit_rows,
            kv_bytes,
            persistent_workgroups: None,
        })
    }

    /// Bytes of the table of per-layer embeddings.
    pub fn table_bytes(&self) -> u64 {
        let bytes = |table: &GpuMatrix| (table.rows * table.format.row_bytes(table.cols)) as u64;
        self.per_layer.as_ref().map_or(0, |tables| bytes(&tables.table))
    }

    /// The trunk for steps of a shape.
    pub fn trunk(&self, shape: StepShape) -> Result<Trunk> {
        let mut rec = Recorder::new(&self.gpu, &self.workspace, shape, false);
        let to_keys = self.record_trunk(&mut rec)?;
        Ok(Trunk { steps: rec.steps, to_keys })
    }

    /// Compiles the kernels of a shape of step, at the same time, as far as that has not been done.
    ///
    /// Errors: a kernel that the driver refuses.
    pub fn compile(&self, shape: StepShape) -> Result<()> {
        self.gpu.compile_together(self.sources(shape, shape)?)
    }

    /// The kernels of a trunk and a head.
    pub fn sources(&self, trunk: StepShape, head: StepShape) -> Result<HashSet<KernelSource>> {
        let rec = |shape, over_outputs| {
            Recorder::for_sources(&self.gpu, &self.workspace, shape, over_outputs)
        };
        let (mut trunk, mut head) = (rec(trunk, false), rec(head, true));
        self.record_trunk(&mut trunk)?;
        self.record_head(&mut head)?;
        Ok(trunk.into_sources().into_iter().chain(head.into_sources()).collect())
    }

    /// Plans the trunk; how many of its steps there are up to the last layer that has keys of its
    /// own.
    fn record_trunk<'a>(&'a self, rec: &mut Recorder<'a>) -> Result<usize> {
        let s = &self.workspace;
        self.embed(rec)?;
        let first_norm = self.layers.first().map_or(&self.norm, |layer| &layer.input_norm);
        let kernel = RmsNorm { n: self.config.hidden_size, eps: self.config.rms_norm_eps };
        let buffers = [("x", &s.x), ("weight", first_norm), ("out", &s.normed)];
        rec.run(&kernel, &buffers)?;
        self.per_layer_inputs(rec)?;
        let mut input = LayerInput::Normed(Emit::Floats);
        let mut to_keys = 0;
        for index in 0..self.layers.len() {
            input = self.layer(rec, index, input)?;
            if index + 1 == self.caches.len() {
                to_keys = rec.steps.len();
            }
        }
        Ok(to_keys)
    }

    fn embed(&self, rec: &mut Recorder<'_>) -> Result<()> {
        let table = &self.embed_tokens;
        for part in &table.parts {
            let kernel = Embed {
                format: table.format,
                first_row: part.first_row,
                rows: part.rows,
                cols: table.cols,
                scale: self.config.embedding_scale(),
                tiled: table.tiled,
            };
            let ([data, scales], s) = (part.bindings(), rec.workspace);
            let token = [("rows", &s.rows), ("sampled", &s.sampled)];
            rec.run(&kernel, &[data, scales, token[0], token[1], ("x", &s.x)])?;
        }
        Ok(())
    }

    /// x, which is the embedding → all layers' vectors, if there are any.
    fn per_layer_inputs(&self, rec: &mut Recorder<'_>) -> Result<()> {
        let (Some(tables), Some(input)) = (&self.per_layer, self.config.per_layer_input) else {
            return Ok(());
        };
        let (s, table) = (rec.workspace, &tables.table);
        let view = OutputView { y: &s.per_layer, stride: stride(table.cols), offset: 0 };
        rec.single(&tables.projection, &s.x, view, None)?;
        for part in &table.parts {
            let kernel = PerLayerInputs {
                format: table.format,
                first_row: part.first_row,
                rows: part.rows,
                layers: self.layers.len(),
                size: input.size,
                projection_scale: (self.config.hidden_size as f32).powf(-0.5),
                eps: self.config.rms_norm_eps,
                tiled: table.tiled,
            };
            let [data, scales] = part.bindings();
            let token = [("rows", &s.rows), ("sampled", &s.sampled)];
            let own = [("norm", &tables.norm), ("x", &s.per_layer)];
            rec.run(&kernel, &[data, scales, token[0], token[1], own[0], own[1]])?;
        }
        Ok(())
    }

    /// branch, the MLP's as a sum of `parts` → x, and the layer's vector → branch, a sum of as many
    /// splits as it returns.
    fn take_per_layer_input<'a>(
        &'a self,
        rec: &mut Recorder<'a>,
        layer: &'a GpuLayer,
        weights: &'a GpuPerLayer,
        splits: usize,
    ) -> Result<usize> {
        let (s, n) = (rec.workspace, self.config.hidden_size);
        let size = weights.projection.cols;
        let gate = OutputView { y: &s.gate_up, stride: stride(size), offset: 0 };
        let format = rec.shared_format(&weights.gate, gate);
        let split_stride = rec.split_stride_of(n);
        let kernel = NormAdd {
            n,
            eps: self.config.rms_norm_eps,
            parts: splits,
            part_stride: split_stride,
            emit: format,
        };
        let norm = ("post_weight", &layer.post_feedforward_norm);
        let own = [("x", &s.x), ("branch", &s.sublayer_output), norm];
        rec.run_emitting(&kernel, &own, format, &s.normed)?;
        rec.products(&weights.gate, rec.input(&s.normed, n, format), gate)?;

        let (format, taken) = (rec.sublayer_input_format(&weights.projection), s.hidden(size));
        let kernel = PerLayerGate {
            n: size,
            vectors_stride: stride(self.config.per_layer_columns()),
            emit: format,
        };
        let own = [("gate", &s.gate_up), ("vectors", &s.per_layer), ("place", &weights.columns)];
        rec.run_emitting(&kernel, &own, format, taken)?;
        rec.sublayer_output(&weights.projection, rec.input(taken, size, format))
    }

    /// One decoder layer: takes its input, updates `x`, leaves the next layer's input and returns
    /// what that is.
    fn layer<'a>(
        &'a self,
        rec: &mut Recorder<'a>,
        index: usize,
        input: LayerInput,
    ) -> Result<LayerInput> {
        let (config, layer) = (&self.config.layers[index], &self.layers[index]);
        let (s, ffn, hidden) = (rec.workspace, config.intermediate_size, self.config.hidden_size);
        let gate_up = OutputView { y: &s.gate_up, stride: stride(2 * ffn), offset: 0 };

        // Attention: normed → qkv → attention → branch
        if let LayerInput::Normed(format) = input {
            rec.products(&layer.qkv, rec.input(&s.normed, hidden, format), self.qkv_view(index))?;
        }
        let attention = self.attention(rec, config, index)?;
        if let (StepShape::Decode, Some(kernel)) = (rec.shape, self.persistent(index)) {
            rec.run(&kernel, &self.persistent_buffers(index))?;
            return Ok(match self.layers.get(index + 1) {
                Some(_) => LayerInput::QkvReady,
                None => LayerInput::Normed(Emit::Floats),
            });
        }
        let splits = rec.sublayer_output(&layer.o_proj, attention)?;
        let format = rec.shared_format(&layer.gate_up, gate_up);
        self.add_rms_norm(
            rec,
            splits,
            format,
            [&layer.post_attention_norm, &layer.pre_feedforward_norm, &s.one],
        )?;
        rec.prefetch(&layer.gate_up[0].0, &layer.down_proj, NORM_PREFETCH_BYTES)?;

        // MLP: normed → gate, up → hidden → branch
        let normed = rec.input(&s.normed, hidden, format);
        let mlp = rec.gated(&layer.gate_up, &layer.down_proj, normed, gate_up, s.hidden(ffn))?;
        let mut splits = rec.sublayer_output(&layer.down_proj, mlp)?;

        // The layer's vector: x → gate → hidden → branch
        let mut post_norm = &layer.post_feedforward_norm;
        if let Some(weights) = &layer.per_layer {
            splits = self.take_per_layer_input(rec, layer, weights, splits)?;
            post_norm = &weights.norm;
        }
        let (next_norm, format) = match self.layers.get(index + 1) {
            Some(next) => {
                (&next.input_norm, rec.shared_format(&next.qkv, self.qkv_view(index + 1)))
            }
            None => (&self.norm, Emit::Floats),
        };
        self.add_rms_norm(rec, splits, format, [post_norm, next_norm, &layer.scalar])?;
        if let Some(next) = self.layers.get(index + 1) {
            rec.prefetch(&next.qkv[0].0, &next.o_proj, NORM_PREFETCH_BYTES)?;
        }
        Ok(LayerInput::Normed(format))
    }

    fn qkv_view(&self, index: usize) -> OutputView<'_> {
        OutputView {
            y: &self.workspace.qkv,
            stride: RopeKvUpdate::qkv_stride(&self.config.layers[index]),
            offset: 0,
        }
    }

    /// branch, a sum of `parts` → x, and normed for the next branch in `format`.
    fn add_rms_norm(
        &self,
        rec: &mut Recorder<'_>,
        splits: usize,
        format: Emit,
        [post_norm, next_norm, scalar]: [&GpuBuffer; 3],
    ) -> Result<()> {
        let (s, n) = (rec.workspace, self.config.hidden_size);
        let split_stride = rec.split_stride_of(n);
        let kernel = NormAddNorm {
            n,
            eps: self.config.rms_norm_eps,
            parts: splits,
            part_stride: split_stride,
            emit: format,
        };
        let own = [
            ("x", &s.x),
            ("branch", &s.sublayer_output),
            ("post_weight", post_norm),
            ("next_weight", next_norm),
            ("layer", scalar),
        ];
        rec.run_emitting(&kernel, &own, format, &s.normed)
    }

    /// Rotary embedding, KV update and attention: qkv → attention, or its splits where a persistent_workgroups
    /// kernel joins them.
    fn attention<'a>(
        &'a self,
        rec: &mut Recorder<'a>,
        config: &LayerConfig,
        index: usize,
    ) -> Result<Activations<'a>> {
        let (s, cache, layer) =
            (&self.workspace, &self.caches[self.config.kv_layer(index)], &self.layers[index]);
        let cols = config.n_heads * config.head_dim;
        let mut attention = rec.input(s.attention(cols), cols, Emit::Floats);
        let split = SplitAttention::of(config, &self.config, self.cache_type, cache.capacity);
        let splits = rec.is_small() && split.can_run(self.gpu.variant());
        // Tokens of one sequence need each other's keys, which another layer may have made.
        let is_raw = splits
            && (!matches!(rec.shape, StepShape::ShortPrefill(_)) || config.kv_from.is_some());
        let rope = RopeKvUpdate {
            layer: config.clone(),
            v_norm: self.config.v_norm,
            eps: self.config.rms_norm_eps,
            cache_type: self.cache_type,
            capacity: cache.capacity,
        };
        let own =
            [("qkv", &s.qkv), ("rows", &s.rows), ("k_cache", &cache.k), ("v_cache", &cache.v)];
        let rotation = [("head_norms", &layer.qk_norms), ("turns", &layer.rope_frequencies)];
        if !is_raw {
            rec.run(&rope, &[&own[..], &rotation].concat())?;
        }
        if splits {
            if SdpaCombine::can_emit(config) {
                attention.format = rec.sublayer_input_format(&layer.o_proj);
            }
            let parts = [("sums", &s.partial_attention), ("norms", &s.attention_stats)];
            let raw = is_raw.then_some(RawHeads { v_norm: rope.v_norm, eps: rope.eps });
            let rotation = if is_raw { &rotation[..] } else { &[] };
            let buffers = [&own[..], &parts, rotation].concat();
            rec.run(&SdpaDecode { split: split.clone(), raw }, &buffers)?;
            if rec.shape == StepShape::Decode && self.persistent(index).is_some() {
                rec.prefetch(&layer.o_proj, &layer.down_proj, ATTENTION_PREFETCH_BYTES)?;
                return Ok(attention);
            }
            let combine = SdpaCombine { split, emit: attention.format };
            let parts = [parts[0], parts[1], ("rows", &s.rows)];
            rec.run_emitting(&combine, &parts, attention.format, attention.floats)?;
            return Ok(attention);
        }
        let sdpa = Sdpa {
            layer: config.clone(),
            scale: self.config.attention_scale,
            cache_type: self.cache_type,
            capacity: cache.capacity,
            q_tile: match rec.shape {
                StepShape::Prefill => Sdpa::prefill_tile(config),
                StepShape::Decode
                | StepShape::DecodeBatch(_)
                | StepShape::ShortPrefill(_)
                | StepShape::MixedBatch => 1,
            },
        };
        if rec.shape == StepShape::Prefill && SdpaCoop::can_run(self.gpu.variant(), &sdpa) {
            attention.format = rec.sublayer_input_format(&layer.o_proj);
            let kernel = SdpaCoop { sdpa, emit: attention.format };
            let own = [&own[..], &[("step", &s.step)]].concat();
            rec.run_emitting(&kernel, &own, attention.format, attention.floats)?;
        } else {
            let others = [("out", attention.floats), ("step", &s.step)];
            rec.run(&sdpa, &[&own[..], &others].concat())?;
        }
        Ok(attention)
    }

    /// The head for so many output rows: `Few`, or `Many`.
    pub fn head(&self, shape: StepShape) -> Result<OutputHead> {
        self.record_head(&mut Recorder::new(&self.gpu, &self.workspace, shape, true))
    }

    fn record_head<'a>(&'a self, rec: &mut Recorder<'a>) -> Result<OutputHead> {
        let s = &self.workspace;
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let matrix = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        let outputs = ("outputs", &s.outputs);
        let gathered = [("x", &s.normed), outputs, ("out", &s.gathered)];
        rec.run(&GatherRows { cols: hidden }, &gathered)?;
        let view = OutputView { y: &s.logits, stride: vocab, offset: 0 };
        rec.single(matrix, &s.gathered, view, self.config.final_logit_softcap)?;
        let logits = std::mem::take(&mut rec.steps);
        let (logits_in, parts) = (("logits", &s.logits), ("parts", &s.argmax_parts));
        let (rows, sampled) = (("rows", &s.rows), ("sampled", &s.sampled));
        rec.run(&ArgmaxParts { n: vocab }, &[logits_in, parts])?;
        rec.run(&Argmax { n: vocab }, &[parts, outputs, rows, sampled])?;
        let argmax = std::mem::take(&mut rec.steps);
        let (parts, draws) = (("parts", &s.sample_parts), ("draws", &s.draws));
        rec.run(&TopKParts { n: vocab }, &[logits_in, draws, parts])?;
        rec.run(&Sample { n: vocab }, &[parts, draws, outputs, rows, sampled])?;
        Ok(OutputHead { logits, argmax, sample: std::mem::take(&mut rec.steps) })
    }
}
