//! Per-layer inputs: a vector of each token for each layer, and its addition in that layer.

use crate::error::Result;
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::kernels::{ActivationFormat, PerLayerGate, PerLayerInputs, RmsNormAdd, stride};
use crate::gpu::model::layers::{GpuLayer, GpuPerLayer};
use crate::gpu::model::linear::SplitSum;
use crate::gpu::model::recorder::{OutputView, Recorder, shared_input};
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::{config::ModelConfig, weights::PerLayerTables};

/// Computes all layers' vectors of `size` from x, which must be the embedding.
pub(super) fn per_layer_inputs(
    rec: &mut Recorder<'_>,
    config: &ModelConfig,
    tables: &PerLayerTables<GpuMatrix, GpuBuffer>,
    size: usize,
) -> Result<()> {
    let (s, table) = (rec.workspace, &tables.table);
    let view = OutputView { y: &s.per_layer, stride: stride(table.cols), offset: 0 };
    let projection = rec.plan(&tables.projection, view, None);
    let x = rec.activations(&s.x, config.hidden_size, ActivationFormat::F32);
    rec.products(&[projection], x)?;
    for part in &table.parts {
        let kernel = PerLayerInputs {
            format: table.format,
            first_row: part.first_row,
            rows: part.rows,
            layers: config.layers.len(),
            size,
            projection_scale: (config.hidden_size as f32).powf(-0.5),
            eps: config.rms_norm_eps,
            interleaved16: table.interleaved16,
        };
        let [data, scales] = part.bindings();
        let token = [("rows", &s.rows), ("sampled", &s.sampled)];
        let own = [("norm", &tables.norm), ("x", &s.per_layer)];
        rec.run(&kernel, &[data, scales, token[0], token[1], own[0], own[1]])?;
    }
    Ok(())
}

/// Adds the MLP's output to x, and writes the gated projection of the layer's vector to the
/// sublayer output.
pub(super) fn take_per_layer_input<'a>(
    rec: &mut Recorder<'a>,
    config: &ModelConfig,
    layer: &'a GpuLayer,
    weights: &'a GpuPerLayer,
    output: SplitSum,
) -> Result<SplitSum> {
    let (s, n) = (rec.workspace, config.hidden_size);
    let size = weights.projection.cols;
    let gate = OutputView { y: &s.gate_up, stride: stride(size), offset: 0 };
    let gate = rec.plan_fused(&weights.gate, gate);
    let format = shared_input(&gate);
    let kernel = RmsNormAdd {
        n,
        eps: config.rms_norm_eps,
        parts: output.splits,
        part_stride: output.stride,
        epilogue: format,
    };
    let post_weight = ("post_weight", &layer.post_feedforward_norm);
    let own = [("x", &s.x), ("branch", &s.sublayer_output), post_weight];
    rec.run_with_epilogue(&kernel, &own, format, &s.normed)?;
    rec.products(&gate, rec.activations(&s.normed, n, format))?;

    let (projection, gated) = (rec.plan_sublayer(&weights.projection), s.hidden(size));
    let (sum, epilogue) = (projection.plan.sum, projection.plan.input);
    let kernel =
        PerLayerGate { n: size, vectors_stride: stride(config.per_layer_columns()), epilogue };
    let own = [("gate", &s.gate_up), ("vectors", &s.per_layer), ("place", &weights.columns)];
    rec.run_with_epilogue(&kernel, &own, epilogue, gated)?;
    rec.products(&[projection], rec.activations(gated, size, epilogue))?;
    Ok(sum)
}
