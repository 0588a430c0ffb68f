//! The buffers of a step.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, tuning::KernelTarget};
use crate::gpu::kernels::{
    Argmax, DrawWords, MatmulCoop, MatmulCoopRows, ROW_TILE, RopeKvUpdate, Sample, SplitAttention,
    stride,
};
pub(in crate::gpu) use crate::gpu::model::allocator::Allocator;
use crate::gpu::model::expert_buffers::ExpertBuffers;
use crate::gpu::model::step::RowLimits;
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::weights::LoadOptions;

/// Activations and step inputs, sized for the largest step. Widths are in columns.
pub(in crate::gpu) struct Workspace<B = GpuBuffer> {
    /// Residual stream `[rows, hidden]`.
    pub x: B,
    /// Normed input of the next sublayer `[rows, hidden]`.
    pub normed: B,
    /// Output of the last product of attention or the MLP `[splits, rows, hidden]`, a sum of
    /// splits.
    pub sublayer_output: B,
    /// The projected q, k and v, and later the MLP's hidden state.
    pub qkv: B,
    /// Attention's outputs, and later gate and up.
    pub gate_up: B,
    /// Attention outputs and hidden states of padded widths, by width. Their padding stays zero.
    padded_attention: BTreeMap<usize, B>,
    padded_hidden: BTreeMap<usize, B>,
    /// Per-layer inputs of all layers `[rows, layers · size]`, if the model has them.
    pub per_layer: B,
    /// Of models with experts.
    pub experts: Option<ExpertBuffers<B>>,
    /// Partial outputs and softmax statistics of attention split over the keys.
    pub partial_attention: B,
    pub attention_stats: B,
    /// int8 activations and their groups.
    pub quants: B,
    pub quant_groups: B,
    /// int8 activations and groups of one row of the MLP's hidden state. Its kernel reads `quants`,
    /// so it needs another buffer for its results.
    pub hidden_quants: B,
    pub hidden_quant_groups: B,
    /// f16 activations for cooperative matrices, see
    /// [`ActivationFormat::F16Tiled`](crate::gpu::kernels::ActivationFormat).
    pub halves: B,
    /// Rows of the buffers for all tokens of a step.
    pub row_capacity: usize,
    /// Final hidden states whose logits are wanted `[outputs, hidden]`.
    pub gathered: B,
    /// `[outputs, vocab]`
    pub logits: B,
    /// See [`ArgmaxParts`](crate::gpu::kernels::ArgmaxParts).
    pub argmax_parts: B,
    /// See [`TopKParts`](crate::gpu::kernels::TopKParts).
    pub sample_parts: B,
    /// The random draws for the tokens of a pass of the head.
    pub draws: B,
    /// Inputs of the step: one [`StepRow`](super::step::StepRow) a token.
    pub rows: B,
    /// Rows whose logits are wanted.
    pub outputs: B,
    /// The last token chosen on the device for each slot.
    pub sampled: B,
    /// Uniform: rows, outputs.
    pub step: B,
    /// Uniform: 1.0, the scalar of an `add_rms_norm` without one.
    pub one: B,
}

impl<B> Workspace<B> {
    /// For steps of `rows` rows, and passes of the head over `logit_rows` rows.
    pub fn new<A: Allocator<Buffer = B>>(
        gpu: &A,
        target: &KernelTarget,
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
        // Products on cooperative matrices write blocks of up to 16 rows, and read tiles of up to
        // 128.
        let rows = rows.next_multiple_of(16);
        let rooms = RowLimits::of(target).rooms(rows);
        let sum_rows = sum_rows(target, rows, &rooms);
        let halves = match target.variant.coop {
            Some(_) => input as u64 * rows.next_multiple_of(ROW_TILE) as u64 * 2,
            None => 0,
        };
        let split = |size: fn(&SplitAttention, &KernelTarget) -> usize| {
            let of = |layer, rows| SplitAttention::of(layer, config, options.cache_type, 1, rows);
            let floats = |layer, &rows| rows * size(&of(layer, rows), target);
            let of_layer = |layer| rooms.iter().map(move |rows| floats(layer, rows));
            config.layers.iter().flat_map(of_layer).max().unwrap_or(0)
        };
        // A sequence draws one token in a step.
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
        Ok(Workspace {
            x: floats("residual stream", rows, hidden)?,
            normed: floats("normed", rows, hidden)?,
            sublayer_output: floats("sublayer output", sum_rows, hidden)?,
            qkv: floats("qkv or hidden", rows, qkv)?,
            gate_up: floats("gate and up, or attention", rows, gate_up)?,
            padded_attention: padded("attention", |layer| layer.n_heads * layer.head_dim, 0)?,
            padded_hidden: padded("mlp", |layer| layer.intermediate_size, per_layer)?,
            per_layer: floats("per-layer inputs", rows, stride(config.per_layer_columns()))?,
            experts: ExpertBuffers::new(gpu, config, rows)?,
            partial_attention: floats(
                "partial attention",
                1,
                split(SplitAttention::partial_outputs_per_row),
            )?,
            attention_stats: floats(
                "softmax statistics",
                1,
                split(SplitAttention::softmax_stats_per_row),
            )?,
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
            step: gpu.uniform("step", [0; 4])?,
            one: gpu.uniform("one", [1f32.to_bits(), 0, 0, 0])?,
        })
    }

    /// The buffer for attention's outputs of `cols` columns.
    pub fn attention(&self, cols: usize) -> &B {
        self.padded_attention.get(&cols).unwrap_or(&self.gate_up)
    }

    /// The buffer for a hidden state of `cols` columns, either the MLP's or of per-layer inputs.
    pub fn hidden(&self, cols: usize) -> &B {
        self.padded_hidden.get(&cols).unwrap_or(&self.qkv)
    }
}

/// Rows of all splits of a product, in steps of up to `rows` rows.
fn sum_rows(target: &KernelTarget, rows: usize, rooms: &[usize]) -> usize {
    let splits = match target.variant.coop {
        Some(_) => MatmulCoop::MOST_SPLITS,
        None => 1,
    };
    let of_room = |&room: &usize| match MatmulCoopRows::runs_on(target) {
        true => room * MatmulCoopRows::MOST_SPLITS,
        false => room,
    };
    rooms.iter().map(of_room).max().unwrap_or(0).max(rows * splits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::device::adapter::AdapterFacts;

    #[test]
    fn splits_of_few_rows_take_no_memory_beside_those_of_many() {
        let sum_rows = |options: &str, rows| {
            let options = options.parse().unwrap();
            let target = KernelTarget::choose(&AdapterFacts::example_card(), &options).unwrap();
            sum_rows(&target, rows, &RowLimits::of(&target).rooms(rows))
        };
        assert_eq!(sum_rows("", 512), 512 * MatmulCoop::MOST_SPLITS);
        assert_eq!(sum_rows("", 16), 16 * MatmulCoopRows::MOST_SPLITS);
        assert_eq!(sum_rows("coop=off", 512), 512);
    }
}
