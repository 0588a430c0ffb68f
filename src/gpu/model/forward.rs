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
            outputs::Use,
            recorder::{Input, Place, Plan},
            workspace::Scratch,
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
const SEAM_BYTES: usize = 8 << 20;
const O_PROJ_BYTES: usize = 4 << 20;

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
    One,
    /// A token each of few sequences: matrix-vector products, their weights read once where the
    /// device can, for up to so many tokens.
    Few(usize),
    /// Few tokens, of which some are of one sequence.
    FewShared(usize),
    /// Many tokens of several sequences.
    Many,
    /// Many tokens of one sequence: attention takes them in tiles.
    ManyOfOne,
}

/// What a layer finds.
enum LayerInput {
    /// Its normed input in this form.
    Normed(Emit),
    /// Its q, k and v.
    Heads,
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
pub(in crate::gpu) struct Head {
    pub logits: Vec<Dispatch>,
    argmax: Vec<Dispatch>,
    sample: Vec<Dispatch>,
}

impl Head {
    /// What chooses tokens after the logits.
    pub fn choice(&self, usage: &Use) -> &[Dispatch] {
        match usage {
            Use::Logits => &[],
            Use::Greedy => &self.argmax,
            Use::Sample(_) => &self.sample,
        }
    }
}

/// A model's weights, caches and scratch on a device.
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
    pub scratch: Scratch,
    pub cache_type: CacheType,
    /// Rows of logits that one pass of the head makes.
    pub logit_rows: usize,
    pub kv_bytes: u64,
    /// Workgroups of [`Chain`], which were seen to run at the same time; `None` where it is not
    /// used.
    pub chained: Option<usize>,
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
        scratch: Scratch,
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
            scratch,
            cache_type,
            logit_rows,
            kv_bytes,
            chained: None,
        })
    }

    /// Bytes of the table of per-layer embeddings.
    pub fn table_bytes(&self) -> u64 {
        let bytes = |table: &GpuMatrix| (table.rows * table.format.row_bytes(table.cols)) as u64;
        self.per_layer.as_ref().map_or(0, |tables| bytes(&tables.table))
    }

    /// The trunk for steps of a shape.
    pub fn trunk(&self, shape: StepShape) -> Result<Trunk> {
        let mut plan = Plan::new(&self.gpu, &self.scratch, shape, false);
        let to_keys = self.plan_trunk(&mut plan)?;
        Ok(Trunk { steps: plan.steps, to_keys })
    }

    /// Compiles the kernels of a shape of step, at the same time, as far as that has not been done.
    ///
    /// Errors: a kernel that the driver refuses.
    pub fn compile(&self, shape: StepShape) -> Result<()> {
        self.gpu.compile_together(self.sources(shape, shape)?)
    }

    /// The kernels of a trunk and a head.
    pub fn sources(&self, trunk: StepShape, head: StepShape) -> Result<HashSet<KernelSource>> {
        let plan =
            |shape, over_outputs| Plan::of_sources(&self.gpu, &self.scratch, shape, over_outputs);
        let (mut trunk, mut head) = (plan(trunk, false), plan(head, true));
        self.plan_trunk(&mut trunk)?;
        self.plan_head(&mut head)?;
        Ok(trunk.into_sources().into_iter().chain(head.into_sources()).collect())
    }

    /// Plans the trunk; how many of its steps there are up to the last layer that has keys of its
    /// own.
    fn plan_trunk<'a>(&'a self, plan: &mut Plan<'a>) -> Result<usize> {
        let s = &self.scratch;
        self.embed(plan)?;
        let first_norm = self.layers.first().map_or(&self.norm, |layer| &layer.input_norm);
        let kernel = RmsNorm { n: self.config.hidden_size, eps: self.config.rms_norm_eps };
        let buffers = [("x", &s.x), ("weight", first_norm), ("out", &s.normed)];
        plan.run(&kernel, &buffers)?;
        self.per_layer_inputs(plan)?;
        let mut input = LayerInput::Normed(Emit::Floats);
        let mut to_keys = 0;
        for index in 0..self.layers.len() {
            input = self.layer(plan, index, input)?;
            if index + 1 == self.caches.len() {
                to_keys = plan.steps.len();
            }
        }
        Ok(to_keys)
    }

    fn embed(&self, plan: &mut Plan<'_>) -> Result<()> {
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
            let ([data, scales], s) = (part.bindings(), plan.scratch);
            let token = [("rows", &s.rows), ("sampled", &s.sampled)];
            plan.run(&kernel, &[data, scales, token[0], token[1], ("x", &s.x)])?;
        }
        Ok(())
    }

    /// x, which is the embedding → all layers' vectors, if there are any.
    fn per_layer_inputs(&self, plan: &mut Plan<'_>) -> Result<()> {
        let (Some(tables), Some(input)) = (&self.per_layer, self.config.per_layer_input) else {
            return Ok(());
        };
        let (s, table) = (plan.scratch, &tables.table);
        let place = Place { y: &s.per_layer, stride: stride(table.cols), offset: 0 };
        plan.single(&tables.projection, &s.x, place, None)?;
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
            plan.run(&kernel, &[data, scales, token[0], token[1], own[0], own[1]])?;
        }
        Ok(())
    }

    /// branch, the MLP's as a sum of `parts` → x, and the layer's vector → branch, a sum of as many
    /// parts as it returns.
    fn take_per_layer_input<'a>(
        &'a self,
        plan: &mut Plan<'a>,
        layer: &'a GpuLayer,
        weights: &'a GpuPerLayer,
        parts: usize,
    ) -> Result<usize> {
        let (s, n) = (plan.scratch, self.config.hidden_size);
        let size = weights.projection.cols;
        let gate = Place { y: &s.gate_up, stride: stride(size), offset: 0 };
        let form = plan.input_form(&weights.gate, gate);
        let part_stride = plan.branch_part_stride(n);
        let kernel = NormAdd { n, eps: self.config.rms_norm_eps, parts, part_stride, emit: form };
        let norm = ("post_weight", &layer.post_feedforward_norm);
        let own = [("x", &s.x), ("branch", &s.branch), norm];
        plan.run_emitting(&kernel, &own, form, &s.normed)?;
        plan.products(&weights.gate, plan.input(&s.normed, n, form), gate)?;

        let (form, taken) = (plan.branch_form(&weights.projection), s.hidden(size));
        let kernel = PerLayerGate {
            n: size,
            vectors_stride: stride(self.config.per_layer_columns()),
            emit: form,
        };
        let own = [("gate", &s.gate_up), ("vectors", &s.per_layer), ("place", &weights.place)];
        plan.run_emitting(&kernel, &own, form, taken)?;
        plan.branch(&weights.projection, plan.input(taken, size, form))
    }

    /// One decoder layer: takes its input, updates `x`, leaves the next layer's input and returns
    /// what that is.
    fn layer<'a>(
        &'a self,
        plan: &mut Plan<'a>,
        index: usize,
        input: LayerInput,
    ) -> Result<LayerInput> {
        let (config, layer) = (&self.config.layers[index], &self.layers[index]);
        let (s, ffn, hidden) = (plan.scratch, config.intermediate_size, self.config.hidden_size);
        let gate_up = Place { y: &s.gate_up, stride: stride(2 * ffn), offset: 0 };

        // Attention: normed → qkv → attention → branch
        if let LayerInput::Normed(form) = input {
            plan.products(&layer.qkv, plan.input(&s.normed, hidden, form), self.qkv_place(index))?;
        }
        let attention = self.attention(plan, config, index)?;
        if let (StepShape::One, Some(kernel)) = (plan.shape, self.chain(index)) {
            plan.run(&kernel, &self.chain_buffers(index))?;
            return Ok(match self.layers.get(index + 1) {
                Some(_) => LayerInput::Heads,
                None => LayerInput::Normed(Emit::Floats),
            });
        }
        let parts = plan.branch(&layer.o_proj, attention)?;
        let form = plan.input_form(&layer.gate_up, gate_up);
        self.seam(
            plan,
            parts,
            form,
            [&layer.post_attention_norm, &layer.pre_feedforward_norm, &s.one],
        )?;
        plan.prefetch(&layer.gate_up[0].0, &layer.down_proj, SEAM_BYTES)?;

        // MLP: normed → gate, up → hidden → branch
        let normed = plan.input(&s.normed, hidden, form);
        let mlp = plan.gated(&layer.gate_up, &layer.down_proj, normed, gate_up, s.hidden(ffn))?;
        let mut parts = plan.branch(&layer.down_proj, mlp)?;

        // The layer's vector: x → gate → hidden → branch
        let mut post_norm = &layer.post_feedforward_norm;
        if let Some(weights) = &layer.per_layer {
            parts = self.take_per_layer_input(plan, layer, weights, parts)?;
            post_norm = &weights.norm;
        }
        let (next_norm, form) = match self.layers.get(index + 1) {
            Some(next) => (&next.input_norm, plan.input_form(&next.qkv, self.qkv_place(index + 1))),
            None => (&self.norm, Emit::Floats),
        };
        self.seam(plan, parts, form, [post_norm, next_norm, &layer.scalar])?;
        if let Some(next) = self.layers.get(index + 1) {
            plan.prefetch(&next.qkv[0].0, &next.o_proj, SEAM_BYTES)?;
        }
        Ok(LayerInput::Normed(form))
    }

    fn qkv_place(&self, index: usize) -> Place<'_> {
        Place {
            y: &self.scratch.qkv,
            stride: RopeKvUpdate::qkv_stride(&self.config.layers[index]),
            offset: 0,
        }
    }

    /// branch, a sum of `parts` → x, and normed for the next branch in `form`.
    fn seam(
        &self,
        plan: &mut Plan<'_>,
        parts: usize,
        form: Emit,
        [post_norm, next_norm, scalar]: [&GpuBuffer; 3],
    ) -> Result<()> {
        let (s, n) = (plan.scratch, self.config.hidden_size);
        let part_stride = plan.branch_part_stride(n);
        let kernel =
            NormAddNorm { n, eps: self.config.rms_norm_eps, parts, part_stride, emit: form };
        let own = [
            ("x", &s.x),
            ("branch", &s.branch),
            ("post_weight", post_norm),
            ("next_weight", next_norm),
            ("layer", scalar),
        ];
        plan.run_emitting(&kernel, &own, form, &s.normed)
    }

    /// Rotary embedding, KV update and attention: qkv → attention, or its parts where a chained
    /// kernel joins them.
    fn attention<'a>(
        &'a self,
        plan: &mut Plan<'a>,
        config: &LayerConfig,
        index: usize,
    ) -> Result<Input<'a>> {
        let (s, cache, layer) =
            (&self.scratch, &self.caches[self.config.kv_layer(index)], &self.layers[index]);
        let cols = config.n_heads * config.head_dim;
        let mut attention = plan.input(s.attention(cols), cols, Emit::Floats);
        let split = SplitAttention::of(config, &self.config, self.cache_type, cache.capacity);
        let splits = plan.is_small() && split.can_run(self.gpu.variant());
        // Tokens of one sequence need each other's keys, which another layer may have made.
        let is_raw =
            splits && (!matches!(plan.shape, StepShape::FewShared(_)) || config.kv_from.is_some());
        let rope = RopeKvUpdate {
            layer: config.clone(),
            v_norm: self.config.v_norm,
            eps: self.config.rms_norm_eps,
            cache_type: self.cache_type,
            capacity: cache.capacity,
        };
        let own =
            [("qkv", &s.qkv), ("rows", &s.rows), ("k_cache", &cache.k), ("v_cache", &cache.v)];
        let rotation = [("head_norms", &layer.qk_norms), ("turns", &layer.turns)];
        if !is_raw {
            plan.run(&rope, &[&own[..], &rotation].concat())?;
        }
        if splits {
            if SdpaCombine::can_emit(config) {
                attention.form = plan.branch_form(&layer.o_proj);
            }
            let parts = [("sums", &s.attention_sums), ("norms", &s.attention_norms)];
            let raw = is_raw.then_some(RawHeads { v_norm: rope.v_norm, eps: rope.eps });
            let rotation = if is_raw { &rotation[..] } else { &[] };
            let buffers = [&own[..], &parts, rotation].concat();
            plan.run(&SdpaDecode { split: split.clone(), raw }, &buffers)?;
            if plan.shape == StepShape::One && self.chain(index).is_some() {
                plan.prefetch(&layer.o_proj, &layer.down_proj, O_PROJ_BYTES)?;
                return Ok(attention);
            }
            let combine = SdpaCombine { split, emit: attention.form };
            let parts = [parts[0], parts[1], ("rows", &s.rows)];
            plan.run_emitting(&combine, &parts, attention.form, attention.floats)?;
            return Ok(attention);
        }
        let sdpa = Sdpa {
            layer: config.clone(),
            scale: self.config.attention_scale,
            cache_type: self.cache_type,
            capacity: cache.capacity,
            q_tile: match plan.shape {
                StepShape::ManyOfOne => Sdpa::prefill_tile(config),
                StepShape::One | StepShape::Few(_) | StepShape::FewShared(_) | StepShape::Many => 1,
            },
        };
        if plan.shape == StepShape::ManyOfOne && SdpaCoop::can_run(self.gpu.variant(), &sdpa) {
            attention.form = plan.branch_form(&layer.o_proj);
            let kernel = SdpaCoop { sdpa, emit: attention.form };
            let own = [&own[..], &[("step", &s.step)]].concat();
            plan.run_emitting(&kernel, &own, attention.form, attention.floats)?;
        } else {
            let others = [("out", attention.floats), ("step", &s.step)];
            plan.run(&sdpa, &[&own[..], &others].concat())?;
        }
        Ok(attention)
    }

    /// The head for so many output rows: `Few`, or `Many`.
    pub fn head(&self, shape: StepShape) -> Result<Head> {
        self.plan_head(&mut Plan::new(&self.gpu, &self.scratch, shape, true))
    }

    fn plan_head<'a>(&'a self, plan: &mut Plan<'a>) -> Result<Head> {
        let s = &self.scratch;
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let matrix = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        let outputs = ("outputs", &s.outputs);
        let gathered = [("x", &s.normed), outputs, ("out", &s.gathered)];
        plan.run(&GatherRows { cols: hidden }, &gathered)?;
        let place = Place { y: &s.logits, stride: vocab, offset: 0 };
        plan.single(matrix, &s.gathered, place, self.config.final_logit_softcap)?;
        let logits = std::mem::take(&mut plan.steps);
        let (logits_in, parts) = (("logits", &s.logits), ("parts", &s.argmax_parts));
        let (rows, sampled) = (("rows", &s.rows), ("sampled", &s.sampled));
        plan.run(&ArgmaxParts { n: vocab }, &[logits_in, parts])?;
        plan.run(&Argmax { n: vocab }, &[parts, outputs, rows, sampled])?;
        let argmax = std::mem::take(&mut plan.steps);
        let (parts, draws) = (("parts", &s.sample_parts), ("draws", &s.draws));
        plan.run(&TopKParts { n: vocab }, &[logits_in, draws, parts])?;
        plan.run(&Sample { n: vocab }, &[parts, draws, outputs, rows, sampled])?;
        Ok(Head { logits, argmax, sample: std::mem::take(&mut plan.steps) })
    }
}
