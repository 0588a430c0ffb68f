//! Buffers that a step works in.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{LayerConfig, ModelConfig},
    error::Result,
    gpu::{
        device::{buffers::GpuBuffer, gpu::Gpu, variant::Variant},
        kernels::{
            Argmax, Chain, DrawWords, MatmulCoop, MatvecQ8Split, ROW_TILE, RopeKvUpdate, Sample,
            SplitAttention, stride,
        },
        model::persistent::set_words,
    },
    weights::LoadOptions,
};

/// Where buffers come from: a device, or a sum of their sizes.
pub(in crate::gpu) trait Allocator {
    type Buffer;
    /// Errors if there is no such buffer to be had.
    fn buffer(&self, label: &str, bytes: u64) -> Result<Self::Buffer>;
    fn uniform(&self, label: &str, words: [u32; 4]) -> Result<Self::Buffer>;
}

impl Allocator for Gpu {
    type Buffer = GpuBuffer;

    fn buffer(&self, label: &str, bytes: u64) -> Result<GpuBuffer> {
        Gpu::buffer(self, label, bytes)
    }

    fn uniform(&self, label: &str, words: [u32; 4]) -> Result<GpuBuffer> {
        Gpu::uniform(self, label, words)
    }
}

/// Activations and step inputs, sized for the largest step. Widths are in columns.
pub(in crate::gpu) struct Workspace<B = GpuBuffer> {
    /// Residual stream `[rows, hidden]`.
    pub x: B,
    /// Normed input of the next branch `[rows, hidden]`.
    pub normed: B,
    /// Output of a branch `[parts, rows, hidden]`: the sum of several parts, or one.
    pub sublayer_output: B,
    /// Heads as they are projected, and later the MLP's hidden state.
    pub qkv: B,
    /// What becomes the hidden state, and before it attention's outputs.
    pub gate_up: B,
    /// Attention outputs and hidden states (of the MLP, of per-layer inputs) of padded widths,
    /// which must keep their zeros.
    padded_attention: BTreeMap<usize, B>,
    padded_hidden: BTreeMap<usize, B>,
    /// All layers' vectors `[rows, layers · size]`, with per-layer embeddings.
    pub per_layer: B,
    /// Parts of attention for the few rows of a decoding step.
    pub partial_attention: B,
    pub attention_stats: B,
    /// int8 activations and their groups.
    pub quants: B,
    pub quant_groups: B,
    /// The same of the MLP's hidden state, for the one row that a kernel makes from others of them.
    pub hidden_quants: B,
    pub hidden_quant_groups: B,
    /// f16 activations for cooperative matrices, see [`Emit::Halves`](crate::gpu::kernels::Emit).
    pub halves: B,
    /// Rows that the buffers for all tokens of a step have room for.
    pub row_capacity: usize,
    /// Final hidden states whose logits are wanted `[outputs, hidden]`.
    pub gathered: B,
    /// `[outputs, vocab]`
    pub logits: B,
    /// See [`ArgmaxParts`](crate::gpu::kernels::ArgmaxParts).
    pub argmax_parts: B,
    /// See [`TopKParts`](crate::gpu::kernels::TopKParts).
    pub sample_parts: B,
    /// How the tokens of a pass of the head are drawn.
    pub draws: B,
    /// Inputs of the step: one [`crate::gpu::backend::StepRow`] a token.
    pub rows: B,
    /// Rows whose logits are wanted.
    pub outputs: B,
    /// The last token chosen on the device for each slot.
    pub sampled: B,
    /// By which workgroups that wait for one another exchange results, see `exchange.wgsl`.
    pub exchange: B,
    /// A word: whether one of them waited in vain.
    pub fault: B,
    /// Uniform: rows, outputs.
    pub step: B,
    /// Uniform: 1.0, the scalar where a seam has none.
    pub one: B,
}

impl<B> Workspace<B> {
    /// For steps of `rows` rows, and passes of the head over `logit_rows`.
    pub fn new<A: Allocator<Buffer = B>>(
        gpu: &A,
        variant: &Variant,
        config: &ModelConfig,
        options: &LoadOptions,
        rows: usize,
        logit_rows: usize,
    ) -> Result<Self> {
        let widest =
            |width: fn(&LayerConfig) -> usize| config.layers.iter().map(width).max().unwrap_or(0);
        let hidden = stride(config.hidden_size);
        let attention = stride(widest(|layer| layer.n_heads * layer.head_dim));
        let ffn = stride(widest(|layer| layer.intermediate_size));
        let per_layer = config.per_layer_input.map_or(0, |input| input.size);
        let input = hidden.max(attention).max(ffn).max(stride(per_layer));
        let floats = |label: &str, rows: usize, cols: usize| {
            gpu.buffer(label, 4 * rows as u64 * cols as u64)
        };
        // Products on cooperative matrices write blocks of up to 16 rows and read tiles of up to
        // 128.
        let rows = rows.next_multiple_of(16);
        let coop = variant.coop.is_some();
        let parts = if coop { MatmulCoop::MOST_SPLITS } else { 1 };
        let halves =
            if coop { input as u64 * rows.next_multiple_of(ROW_TILE) as u64 * 2 } else { 0 };
        let few = rows.min(MatvecQ8Split::MOST_ROWS);
        let split = |size: fn(&SplitAttention, &Variant) -> usize| {
            let of = |layer| SplitAttention::of(layer, config, options.cache_type, 1);
            config.layers.iter().map(|layer| size(&of(layer), variant)).max().unwrap_or(0)
        };
        // A sequence draws one token a step.
        let drawn = logit_rows.min(options.max_sequences);
        let padded = |label: &str, width: fn(&LayerConfig) -> usize, other: usize| {
            let widths = config.layers.iter().map(width).chain([other]);
            let widths: BTreeSet<usize> = widths.filter(|&cols| stride(cols) != cols).collect();
            widths
                .into_iter()
                .map(|cols| Ok((cols, floats(label, rows, stride(cols))?)))
                .collect::<Result<_>>()
        };
        let gate_up = stride(widest(|layer| 2 * layer.intermediate_size))
            .max(attention)
            .max(stride(per_layer));
        let qkv = widest(RopeKvUpdate::qkv_stride).max(ffn).max(stride(per_layer));
        let exchange = if variant.chain && config.beyond_dense().is_none() {
            4 * (Chain::SETS * set_words(config)) as u64
        } else {
            0
        };
        Ok(Workspace {
            x: floats("residual stream", rows, hidden)?,
            normed: floats("normed", rows, hidden)?,
            sublayer_output: floats("branch", rows * parts, hidden)?,
            qkv: floats("qkv or hidden", rows, qkv)?,
            gate_up: floats("gate and up, or attention", rows, gate_up)?,
            padded_attention: padded("attention", |layer| layer.n_heads * layer.head_dim, 0)?,
            padded_hidden: padded("mlp", |layer| layer.intermediate_size, per_layer)?,
            per_layer: floats("per-layer inputs", rows, stride(config.per_layer_columns()))?,
            partial_attention: floats("attention sums", few, split(SplitAttention::sums_per_row))?,
            attention_stats: floats("attention norms", few, split(SplitAttention::norms_per_row))?,
            quants: gpu.buffer("int8 activations", (rows * input) as u64)?,
            quant_groups: gpu.buffer("int8 scales", (rows * input / 4) as u64)?,
            hidden_quants: gpu.buffer("int8 mlp", ffn as u64)?,
            hidden_quant_groups: gpu.buffer("int8 mlp scales", ffn as u64 / 4)?,
            halves: gpu.buffer("f16 activations", halves)?,
            row_capacity: rows,
            gathered: floats("outputs", logit_rows, hidden)?,
            logits: floats("logits", logit_rows, config.vocab_size)?,
            argmax_parts: gpu.buffer("argmax", (8 * Argmax::PARTS * logit_rows) as u64)?,
            sample_parts: gpu.buffer("candidates", (8 * Sample::CANDIDATES * drawn) as u64)?,
            draws: gpu.buffer("draws", (size_of::<DrawWords>() * drawn) as u64)?,
            rows: gpu.buffer("rows", 16 * rows as u64)?,
            outputs: gpu.buffer("output rows", 4 * logit_rows as u64)?,
            sampled: gpu.buffer("sampled", 4 * options.max_sequences as u64)?,
            exchange: gpu.buffer("exchange", exchange)?,
            fault: gpu.buffer("fault", 16)?,
            step: gpu.uniform("step", [0; 4])?,
            one: gpu.uniform("one", [1f32.to_bits(), 0, 0, 0])?,
        })
    }

    /// Room for attention's outputs of so many columns.
    pub fn attention(&self, cols: usize) -> &B {
        self.padded_attention.get(&cols).unwrap_or(&self.gate_up)
    }

    /// Room for a hidden state of so many columns: an MLP's, or what becomes of a layer's vector.
    pub fn hidden(&self, cols: usize) -> &B {
        self.padded_hidden.get(&cols).unwrap_or(&self.qkv)
    }
}
