//! The experts of one layer, beside its dense MLP.

use crate::error::Result;
use crate::gpu::kernels::{
    ExpertInputs, ExpertProduct, ExpertsMatmul, ExpertsMatvec, Kernel, MatmulF32, Matvec, Pairs,
    Route, SortExperts, stride,
};
use crate::gpu::model::expert_buffers::ExpertBuffers;
use crate::gpu::model::expert_weights::GpuExperts;
use crate::gpu::model::linear::linears;
use crate::gpu::model::recorder::Recorder;
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::config::ModelConfig;

/// Rows of the largest steps whose experts are matrix-vector products. Experts have a few of
/// their pairs at most.
const MATVEC_ROWS: usize = 32;
/// Rows of the largest steps whose router is a matrix-vector product.
const ROUTER_MATVEC_ROWS: usize = 8;

/// Residual stream → results of each row's experts, and their weights.
pub(super) fn experts(
    rec: &mut Recorder<'_>,
    config: &ModelConfig,
    layer: &GpuExperts,
    buffers: &ExpertBuffers,
) -> Result<()> {
    let (s, b, n) = (rec.workspace, buffers, config.hidden_size);
    let kernel = ExpertInputs { n, eps: config.rms_norm_eps };
    let norms = [("pre_norm", &layer.pre_norm), ("router_scale", &layer.router_scale)];
    let inputs = [("experts", &b.inputs), ("routed", &b.routed)];
    rec.run(&kernel, &[("x", &s.x), norms[0], norms[1], inputs[0], inputs[1]])?;
    route(rec, layer, buffers)?;
    let rows = rec.shape.room().unwrap_or(s.row_capacity);
    let pairs = match rows {
        1 => Pairs::Single,
        _ if rows <= MATVEC_ROWS => Pairs::Tiles(ExpertsMatvec::TILE),
        _ => Pairs::Tiles(ExpertsMatmul::TILE),
    };
    if let Pairs::Tiles(tile) = pairs {
        let sorted = [("pairs", &b.pairs), ("tiles", &b.tiles), ("step", &s.step)];
        let kernel = SortExperts { experts: layer.sizes, tile };
        rec.run(&kernel, &[("chosen", &b.chosen), sorted[0], sorted[1], sorted[2]])?;
    }
    product(rec, layer, (&layer.gate_up, true), pairs, buffers)?;
    product(rec, layer, (&layer.down, false), pairs, buffers)
}

/// The router's logits in f32, and the choice of experts.
fn route(rec: &mut Recorder<'_>, layer: &GpuExperts, b: &ExpertBuffers) -> Result<()> {
    let router = &layer.router;
    let is_matvec = rec.shape.room().is_some_and(|room| room <= ROUTER_MATVEC_ROWS);
    for (part, linear) in router.parts.iter().zip(linears(router, stride(router.rows), 0)) {
        let [data, scales] = part.bindings();
        let mut bindings = vec![data, scales, ("x", &b.routed), ("y", &b.logits)];
        if is_matvec {
            rec.run(&Matvec(linear), &bindings)?;
        } else {
            bindings.push(("step", &rec.workspace.step));
            rec.run(&MatmulF32(linear), &bindings)?;
        }
    }
    let results = [("chosen", &b.chosen), ("weights", &b.weights)];
    let scale = ("per_expert_scale", &layer.per_expert_scale);
    rec.run(&Route(layer.sizes), &[("logits", &b.logits), scale, results[0], results[1]])
}

/// The product with gate and up, or with down.
fn product(
    rec: &mut Recorder<'_>,
    layer: &GpuExperts,
    (matrix, gated): (&GpuMatrix, bool),
    pairs: Pairs,
    b: &ExpertBuffers,
) -> Result<()> {
    let sizes = layer.sizes;
    let rows = matrix.rows / sizes.count;
    let (x, y) = if gated { (&b.inputs, &b.hidden) } else { (&b.hidden, &b.results) };
    for part in &matrix.parts {
        let product = ExpertProduct {
            experts: sizes,
            format: matrix.format,
            bound: part.rows / rows,
            first: part.first_row / rows,
            features: if gated { rows / 2 } else { rows },
            cols: matrix.cols,
            gated,
            share: if gated { sizes.top_k } else { 1 },
            interleaved16: matrix.interleaved16,
        };
        let [data, scales] = part.bindings();
        let mut bindings = vec![data, scales, ("x", x), ("y", y)];
        match pairs {
            Pairs::Single => bindings.push(("chosen", &b.chosen)),
            Pairs::Tiles(_) => bindings.extend([("tiles", &b.tiles), ("pairs", &b.pairs)]),
        }
        let kernel: Box<dyn Kernel> = match pairs {
            Pairs::Tiles(ExpertsMatmul::TILE) => Box::new(ExpertsMatmul(product)),
            _ => Box::new(ExpertsMatvec { product, pairs }),
        };
        rec.run(&*kernel, &bindings)?;
    }
    Ok(())
}
