//! The forward pass as lists of bound dispatches, in the order of the architecture.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Dispatch, Gpu, GpuBuffer, GpuMatrix, Grid,
    kernels::{
        Argmax, Embed, GatherRows, GeluMul, Kernel, Linear, Matmul, Matvec, MatvecQ8, MatvecQ8Split, NormAddNorm,
        QuantizeRows, RmsNorm, RopeKvUpdate, Sdpa, SdpaCombine, SdpaDecode, SplitAttention, stride,
    },
};
use crate::{
    Result,
    backend::cache_capacity,
    config::{LayerConfig, ModelConfig},
    weights::{CacheType, LayerWeights, LoadOptions, ModelWeights},
};

pub(super) type GpuWeights = ModelWeights<GpuMatrix, GpuBuffer>;

/// Logits that one pass of the lm_head makes at most: bounds the buffer that holds them.
const LOGIT_BYTES: usize = 64 << 20;

/// KV cache of one layer, each `[slots, n_kv_heads, capacity, head_dim]`.
pub(super) struct LayerCache {
    k: GpuBuffer,
    v: GpuBuffer,
    /// Positions that a slot holds: a ring in sliding layers.
    capacity: usize,
}

/// The small inputs of one layer's attention and seam.
struct LayerInputs {
    /// Uniform: the layer's output scalar.
    scalar: GpuBuffer,
    /// q_norm and k_norm, one after the other.
    qk_norms: GpuBuffer,
    /// See [`RopeKvUpdate::turns`].
    turns: GpuBuffer,
}

/// Activations and step inputs, sized for the largest step. Widths are in columns.
pub(super) struct Scratch {
    /// Residual stream `[rows, hidden]`.
    x: GpuBuffer,
    /// Normed input of the next branch `[rows, hidden]`.
    normed: GpuBuffer,
    /// Output of a branch `[rows, hidden]`.
    branch: GpuBuffer,
    qkv: GpuBuffer,
    gate_up: GpuBuffer,
    /// Attention outputs and MLP hidden states, by their width: padding columns must stay zero.
    attention: BTreeMap<usize, GpuBuffer>,
    hidden: BTreeMap<usize, GpuBuffer>,
    /// Parts of attention for the few rows of a decoding step.
    attention_sums: GpuBuffer,
    attention_norms: GpuBuffer,
    /// int8 activations and their groups.
    quants: GpuBuffer,
    quant_groups: GpuBuffer,
    /// Final hidden states whose logits are wanted `[outputs, hidden]`.
    gathered: GpuBuffer,
    /// `[outputs, vocab]`
    pub logits: GpuBuffer,
    /// Inputs of the step: one [`super::backend::StepRow`] a token.
    pub rows: GpuBuffer,
    /// Rows whose logits are wanted.
    pub outputs: GpuBuffer,
    /// The last token chosen on the device for each slot.
    pub sampled: GpuBuffer,
    /// Uniform: rows, outputs.
    pub step: GpuBuffer,
    /// Uniform: 1.0, the scalar where a seam has none.
    one: GpuBuffer,
}

/// How a step's matrices and attention are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum StepShape {
    /// One token: matrix-vector products.
    One,
    /// Few tokens: matrix-vector products, their weights read once where the device can.
    Few,
    /// Many tokens of several sequences.
    Many,
    /// Many tokens of one sequence: attention takes them in tiles.
    ManyOfOne,
}

/// Dispatches from token ids to normed final hidden states.
pub(super) struct Trunk(pub Vec<Dispatch>);

/// Dispatches from final hidden states to logits, and from logits to tokens.
pub(super) struct Head {
    pub logits: Vec<Dispatch>,
    pub argmax: Dispatch,
}

/// A model's weights, caches and scratch on a device.
pub(super) struct Model {
    gpu: Gpu,
    pub config: ModelConfig,
    weights: GpuWeights,
    caches: Vec<LayerCache>,
    inputs: Vec<LayerInputs>,
    pub scratch: Scratch,
    cache_type: CacheType,
    /// Rows of logits that one pass of the head makes.
    pub logit_rows: usize,
    pub kv_bytes: u64,
}

impl Model {
    /// KV caches for all layers: the first thing to allocate, because a context that does not fit
    /// should fail before gigabytes of weights are read.
    pub fn caches(gpu: &Gpu, config: &ModelConfig, options: &LoadOptions, rows: usize) -> Result<Vec<LayerCache>> {
        config.layers.iter().map(|layer| LayerCache::new(gpu, layer, options, rows)).collect()
    }

    pub fn new(
        gpu: Gpu,
        config: ModelConfig,
        weights: GpuWeights,
        caches: Vec<LayerCache>,
        options: &LoadOptions,
        rows: usize,
    ) -> Result<Self> {
        let layers = config.layers.iter().zip(&weights.layers);
        let inputs = layers.map(|(layer, weights)| LayerInputs::new(&gpu, layer, weights)).collect::<Result<_>>()?;
        let logit_rows = (LOGIT_BYTES / (4 * config.vocab_size)).clamp(1, rows.max(options.max_sequences));
        let scratch = Scratch::new(&gpu, &config, options, rows, logit_rows)?;
        let kv_bytes = caches.iter().map(|cache| cache.k.size() + cache.v.size()).sum();
        let cache_type = options.cache_type;
        Ok(Model { gpu, config, weights, caches, inputs, scratch, cache_type, logit_rows, kv_bytes })
    }

    /// The trunk for steps of a shape.
    pub fn trunk(&self, shape: StepShape) -> Result<Trunk> {
        let scratch = &self.scratch;
        let mut plan = Plan { gpu: &self.gpu, scratch, shape, over_outputs: false, steps: Vec::new() };
        let hidden = self.config.hidden_size;
        let eps = self.config.rms_norm_eps;
        self.embed(&mut plan)?;
        let first_norm = self.weights.layers.first().map_or(&self.weights.norm, |layer| &layer.input_norm);
        plan.run(&RmsNorm { n: hidden, eps }, &[&scratch.x, first_norm, &scratch.normed])?;
        for (index, layer) in self.config.layers.iter().enumerate() {
            let next_norm = self.weights.layers.get(index + 1).map_or(&self.weights.norm, |next| &next.input_norm);
            self.layer(&mut plan, index, layer, next_norm)?;
        }
        Ok(Trunk(plan.steps))
    }

    fn embed(&self, plan: &mut Plan<'_>) -> Result<()> {
        let table = &self.weights.embed_tokens;
        for part in &table.parts {
            let kernel = Embed {
                format: table.format,
                first_row: part.first_row,
                rows: part.rows,
                cols: table.cols,
                scale: self.config.embedding_scale(),
            };
            let scratch = plan.scratch;
            plan.run(&kernel, &[&part.data, &part.scales, &scratch.rows, &scratch.sampled, &scratch.x])?;
        }
        Ok(())
    }

    /// One decoder layer: reads `normed`, updates `x`, leaves the next layer's input in `normed`.
    fn layer(&self, plan: &mut Plan<'_>, index: usize, layer: &LayerConfig, next_norm: &GpuBuffer) -> Result<()> {
        let (weights, inputs) = (&self.weights.layers[index], &self.inputs[index]);
        // `attention` and `hidden` have an entry for every layer's width.
        let (s, ffn) = (plan.scratch, layer.intermediate_size);
        let (hidden, eps) = (self.config.hidden_size, self.config.rms_norm_eps);
        let seam = NormAddNorm { n: hidden, eps };

        // Attention: normed → qkv → attention → branch
        let qkv = RopeKvUpdate::qkv_stride(layer);
        plan.quantize(&[&weights.q_proj, &weights.k_proj], &s.normed, hidden)?;
        plan.linear(&weights.q_proj, &s.normed, &s.qkv, qkv, 0)?;
        plan.linear(&weights.k_proj, &s.normed, &s.qkv, qkv, RopeKvUpdate::k_offset(layer))?;
        if let Some(v_proj) = &weights.v_proj {
            plan.linear(v_proj, &s.normed, &s.qkv, qkv, RopeKvUpdate::v_offset(layer))?;
        }
        self.attention(plan, layer, index)?;
        let heads = layer.n_heads * layer.head_dim;
        let attention = &s.attention[&heads];
        plan.quantize(&[&weights.o_proj], attention, heads)?;
        plan.linear(&weights.o_proj, attention, &s.branch, stride(hidden), 0)?;
        let (post, pre) = (&weights.post_attention_norm, &weights.pre_feedforward_norm);
        plan.run(&seam, &[&s.x, &s.branch, post, pre, &s.normed, &s.one])?;

        // MLP: normed → gate, up → hidden → branch
        plan.quantize(&[&weights.gate_proj, &weights.up_proj], &s.normed, hidden)?;
        plan.linear(&weights.gate_proj, &s.normed, &s.gate_up, stride(2 * ffn), 0)?;
        plan.linear(&weights.up_proj, &s.normed, &s.gate_up, stride(2 * ffn), ffn)?;
        let mlp = &s.hidden[&ffn];
        plan.run(&GeluMul { n: ffn }, &[&s.gate_up, mlp])?;
        plan.quantize(&[&weights.down_proj], mlp, ffn)?;
        plan.linear(&weights.down_proj, mlp, &s.branch, stride(hidden), 0)?;
        let post = &weights.post_feedforward_norm;
        plan.run(&seam, &[&s.x, &s.branch, post, next_norm, &s.normed, &inputs.scalar])
    }

    /// Rotary embedding, KV update and attention: qkv → attention.
    fn attention(&self, plan: &mut Plan<'_>, layer: &LayerConfig, index: usize) -> Result<()> {
        let (s, cache, inputs) = (plan.scratch, &self.caches[index], &self.inputs[index]);
        let rope = RopeKvUpdate {
            layer: layer.clone(),
            v_norm: self.config.v_norm,
            eps: self.config.rms_norm_eps,
            cache_type: self.cache_type,
            capacity: cache.capacity,
        };
        plan.run(&rope, &[&s.qkv, &inputs.qk_norms, &inputs.turns, &s.rows, &cache.k, &cache.v])?;
        let attention = &s.attention[&(layer.n_heads * layer.head_dim)];
        if matches!(plan.shape, StepShape::One | StepShape::Few) && self.gpu.variant().subgroups.is_some() {
            let split = split_attention(layer, &self.config, self.cache_type, cache.capacity);
            let (sums, norms) = (&s.attention_sums, &s.attention_norms);
            plan.run(&SdpaDecode(split.clone()), &[&s.qkv, &cache.k, &cache.v, &s.rows, sums, norms])?;
            return plan.run(&SdpaCombine(split), &[sums, norms, &s.rows, attention]);
        }
        let sdpa = Sdpa {
            layer: layer.clone(),
            scale: self.config.attention_scale,
            cache_type: self.cache_type,
            capacity: cache.capacity,
            q_tile: match plan.shape {
                StepShape::ManyOfOne => Sdpa::prefill_tile(layer),
                StepShape::One | StepShape::Few | StepShape::Many => 1,
            },
        };
        plan.run(&sdpa, &[&s.qkv, &cache.k, &cache.v, &s.rows, attention, &s.step])
    }

    /// The head for so many output rows: `Few`, or `Many`.
    pub fn head(&self, shape: StepShape) -> Result<Head> {
        let s = &self.scratch;
        let mut plan = Plan { gpu: &self.gpu, scratch: s, shape, over_outputs: true, steps: Vec::new() };
        let hidden = self.config.hidden_size;
        let matrix = self.weights.lm_head.as_ref().unwrap_or(&self.weights.embed_tokens);
        plan.run(&GatherRows { cols: hidden }, &[&s.normed, &s.outputs, &s.gathered])?;
        plan.quantize(&[matrix], &s.gathered, hidden)?;
        let softcap = self.config.final_logit_softcap;
        plan.product(matrix, &s.gathered, &s.logits, self.config.vocab_size, 0, softcap)?;
        let logits = std::mem::take(&mut plan.steps);
        plan.run(&Argmax { n: self.config.vocab_size }, &[&s.logits, &s.outputs, &s.rows, &s.sampled])?;
        Ok(Head { logits, argmax: plan.steps.remove(0) })
    }
}

fn split_attention(
    layer: &LayerConfig,
    config: &ModelConfig,
    cache_type: CacheType,
    capacity: usize,
) -> SplitAttention {
    SplitAttention { layer: layer.clone(), scale: config.attention_scale, cache_type, capacity }
}

impl LayerCache {
    fn new(gpu: &Gpu, layer: &LayerConfig, options: &LoadOptions, rows: usize) -> Result<Self> {
        let context = options.context_length;
        let capacity = cache_capacity(layer, context, rows);
        let element = match options.cache_type {
            CacheType::F16 => 2,
            CacheType::F32 => 4,
        };
        let bytes = [capacity, options.max_sequences, layer.n_kv_heads, layer.head_dim, element]
            .iter()
            .fold(1u64, |product, &factor| product.saturating_mul(factor as u64));
        let label = format!("KV cache of one layer for {context} positions");
        Ok(LayerCache { k: gpu.buffer(&label, bytes)?, v: gpu.buffer(&label, bytes)?, capacity })
    }
}

impl LayerInputs {
    fn new(gpu: &Gpu, layer: &LayerConfig, weights: &LayerWeights<GpuMatrix, GpuBuffer>) -> Result<Self> {
        let norm_bytes = 4 * layer.head_dim as u64;
        let qk_norms = gpu.buffer("qk norms", 2 * norm_bytes)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&weights.q_norm, 0, &qk_norms, 0, norm_bytes);
        encoder.copy_buffer_to_buffer(&weights.k_norm, 0, &qk_norms, norm_bytes, norm_bytes);
        gpu.queue().submit([encoder.finish()]);
        Ok(LayerInputs {
            scalar: gpu.uniform("layer scalar", [weights.scalar.to_bits(), 0, 0, 0])?,
            qk_norms,
            turns: gpu.buffer_of("rope", &RopeKvUpdate::turns(layer))?,
        })
    }
}

impl Scratch {
    fn new(gpu: &Gpu, config: &ModelConfig, options: &LoadOptions, rows: usize, logit_rows: usize) -> Result<Self> {
        let widest = |width: fn(&LayerConfig) -> usize| config.layers.iter().map(width).max().unwrap_or(0);
        let hidden = stride(config.hidden_size);
        let attention = stride(widest(|layer| layer.n_heads * layer.head_dim));
        let ffn = stride(widest(|layer| layer.intermediate_size));
        let input = hidden.max(attention).max(ffn);
        let floats = |label: &str, rows: usize, cols: usize| gpu.buffer(label, 4 * rows as u64 * cols as u64);
        let few = rows.min(MatvecQ8Split::MOST_ROWS);
        let split = |size: fn(&SplitAttention) -> usize| {
            let sizes = config.layers.iter().map(|layer| size(&split_attention(layer, config, options.cache_type, 1)));
            sizes.max().unwrap_or(0)
        };
        let by_width = |label: &str, width: fn(&LayerConfig) -> usize| {
            let widths: BTreeSet<usize> = config.layers.iter().map(width).collect();
            widths.into_iter().map(|cols| Ok((cols, floats(label, rows, stride(cols))?))).collect::<Result<_>>()
        };
        Ok(Scratch {
            x: floats("residual stream", rows, hidden)?,
            normed: floats("normed", rows, hidden)?,
            branch: floats("branch", rows, hidden)?,
            qkv: floats("qkv", rows, widest(RopeKvUpdate::qkv_stride))?,
            gate_up: floats("gate and up", rows, widest(|layer| stride(2 * layer.intermediate_size)))?,
            attention: by_width("attention", |layer| layer.n_heads * layer.head_dim)?,
            hidden: by_width("mlp", |layer| layer.intermediate_size)?,
            attention_sums: floats("attention sums", few, split(SplitAttention::sums_per_row))?,
            attention_norms: floats("attention norms", few, split(SplitAttention::norms_per_row))?,
            quants: gpu.buffer("int8 activations", (rows * input) as u64)?,
            quant_groups: gpu.buffer("int8 scales", (rows * input / 4) as u64)?,
            gathered: floats("outputs", logit_rows, hidden)?,
            logits: floats("logits", logit_rows, config.vocab_size)?,
            rows: gpu.buffer("rows", 16 * rows as u64)?,
            outputs: gpu.buffer("output rows", 4 * logit_rows as u64)?,
            sampled: gpu.buffer("sampled", 4 * options.max_sequences as u64)?,
            step: gpu.uniform("step", [0; 4])?,
            one: gpu.uniform("one", [1f32.to_bits(), 0, 0, 0])?,
        })
    }
}

/// A list of dispatches under construction.
struct Plan<'a> {
    gpu: &'a Gpu,
    scratch: &'a Scratch,
    shape: StepShape,
    /// Rows are output rows, not tokens.
    over_outputs: bool,
    steps: Vec<Dispatch>,
}

impl Plan<'_> {
    fn run(&mut self, kernel: &dyn Kernel, buffers: &[&GpuBuffer]) -> Result<()> {
        let variant = self.gpu.variant();
        self.push(kernel, buffers, kernel.grid(variant))
    }

    fn push(&mut self, kernel: &dyn Kernel, buffers: &[&GpuBuffer], grid: Grid) -> Result<()> {
        let buffers: Vec<&wgpu::Buffer> = buffers.iter().map(|buffer| &***buffer).collect();
        self.steps.push(self.gpu.dispatch(&kernel.source(self.gpu.variant()), &buffers, grid)?);
        Ok(())
    }

    /// Rows that a product reads its weights once for, where the device can do that.
    fn few_rows(&self) -> Option<usize> {
        let rows = if self.shape == StepShape::One { 1 } else { MatvecQ8Split::MOST_ROWS };
        MatvecQ8Split::runs_on(self.gpu.variant()).then_some(rows)
    }

    /// Whether a product with this matrix takes int8 activations.
    fn takes_q8(&self, matrix: &GpuMatrix) -> bool {
        matches!(self.shape, StepShape::One | StepShape::Few)
            && self.gpu.variant().dp4a
            && Linear::supports_q8(matrix.format)
    }

    /// Makes int8 activations of `x` if one of the matrices takes them.
    fn quantize(&mut self, matrices: &[&GpuMatrix], x: &GpuBuffer, cols: usize) -> Result<()> {
        if !matrices.iter().any(|matrix| self.takes_q8(matrix)) {
            return Ok(());
        }
        let kernel = QuantizeRows { cols };
        let grid = if self.over_outputs { Grid::outputs() } else { Grid::rows() };
        self.push(&kernel, &[x, &self.scratch.quants, &self.scratch.quant_groups], grid)
    }

    /// `y[row, y_offset..] = matrix · x[row]`, `y` having rows of `y_stride` columns.
    fn linear(
        &mut self,
        matrix: &GpuMatrix,
        x: &GpuBuffer,
        y: &GpuBuffer,
        y_stride: usize,
        y_offset: usize,
    ) -> Result<()> {
        self.product(matrix, x, y, y_stride, y_offset, None)
    }

    fn product(
        &mut self,
        matrix: &GpuMatrix,
        x: &GpuBuffer,
        y: &GpuBuffer,
        y_stride: usize,
        y_offset: usize,
        softcap: Option<f32>,
    ) -> Result<()> {
        for part in &matrix.parts {
            let linear = Linear {
                format: matrix.format,
                rows: part.rows,
                cols: matrix.cols,
                y_stride,
                y_offset: y_offset + part.first_row,
                softcap,
                over_outputs: self.over_outputs,
            };
            let (data, scales, step) = (&part.data, &part.scales, &self.scratch.step);
            let (quants, groups) = (&self.scratch.quants, &self.scratch.quant_groups);
            match self.shape {
                StepShape::One | StepShape::Few if self.takes_q8(matrix) => match self.few_rows() {
                    Some(m) => {
                        self.run(&MatvecQ8Split { linear, m }, &[data, scales, quants, groups, y, step])?;
                    }
                    None => self.run(&MatvecQ8(linear), &[data, scales, quants, groups, y])?,
                },
                StepShape::One | StepShape::Few => self.run(&Matvec(linear), &[data, scales, x, y])?,
                StepShape::Many | StepShape::ManyOfOne => self.run(&Matmul(linear), &[data, scales, x, y, step])?,
            }
        }
        Ok(())
    }
}
