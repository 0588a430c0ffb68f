//! Per-layer inputs: a vector of each token for each layer, and how a layer takes in its own.

use crate::{
    error::Result,
    gpu::{
        device::buffers::GpuBuffer,
        kernels::{NormAdd, PerLayerGate, PerLayerInputs, stride},
        model::{
            layers::{GpuLayer, GpuPerLayer},
            recorder::{OutputView, Recorder},
        },
        weights::matrix::GpuMatrix,
    },
    model::{config::ModelConfig, weights::PerLayerTables},
};

/// x, which is the embedding → all layers' vectors of `size`.
pub(super) fn per_layer_inputs(
    rec: &mut Recorder<'_>,
    config: &ModelConfig,
    tables: &PerLayerTables<GpuMatrix, GpuBuffer>,
    size: usize,
) -> Result<()> {
    let (s, table) = (rec.workspace, &tables.table);
    let view = OutputView { y: &s.per_layer, stride: stride(table.cols), offset: 0 };
    rec.single(&tables.projection, &s.x, view, None)?;
    for part in &table.parts {
        let kernel = PerLayerInputs {
            format: table.format,
            first_row: part.first_row,
            rows: part.rows,
            layers: config.layers.len(),
            size,
            projection_scale: (config.hidden_size as f32).powf(-0.5),
            eps: config.rms_norm_eps,
            tiled: table.tiled,
        };
        let [data, scales] = part.bindings();
        let token = [("rows", &s.rows), ("sampled", &s.sampled)];
        let own = [("norm", &tables.norm), ("x", &s.per_layer)];
        rec.run(&kernel, &[data, scales, token[0], token[1], own[0], own[1]])?;
    }
    Ok(())
}

/// Adds the MLP's output, a sum of `splits`, to x; the gated projection of the layer's vector →
/// sublayer output, a sum of as many splits as it returns.
pub(super) fn take_per_layer_input<'a>(
    rec: &mut Recorder<'a>,
    config: &ModelConfig,
    layer: &'a GpuLayer,
    weights: &'a GpuPerLayer,
    splits: usize,
) -> Result<usize> {
    let (s, n) = (rec.workspace, config.hidden_size);
    let size = weights.projection.cols;
    let gate = OutputView { y: &s.gate_up, stride: stride(size), offset: 0 };
    let format = rec.shared_format(&weights.gate, gate);
    let kernel = NormAdd {
        n,
        eps: config.rms_norm_eps,
        parts: splits,
        part_stride: rec.split_stride(n),
        emit: format,
    };
    let post_weight = ("post_weight", &layer.post_feedforward_norm);
    let own = [("x", &s.x), ("branch", &s.sublayer_output), post_weight];
    rec.run_emitting(&kernel, &own, format, &s.normed)?;
    rec.products(&weights.gate, rec.activations(&s.normed, n, format), gate)?;

    let (format, gated) = (rec.sublayer_input_format(&weights.projection), s.hidden(size));
    let kernel =
        PerLayerGate { n: size, vectors_stride: stride(config.per_layer_columns()), emit: format };
    let own = [("gate", &s.gate_up), ("vectors", &s.per_layer), ("place", &weights.columns)];
    rec.run_emitting(&kernel, &own, format, gated)?;
    rec.sublayer_output(&weights.projection, rec.activations(gated, size, format))
}
