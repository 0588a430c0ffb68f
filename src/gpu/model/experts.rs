//! The experts of one layer, beside its dense MLP.

use crate::error::Result;
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::device::gpu::Gpu;
use crate::gpu::kernels::{
    AddExpertsRmsNorm, ExpertInputs, ExpertProduct, ExpertsMatmul, ExpertsMatvec, Kernel,
    MatmulF32, Matvec, Pairs, Route, SortExperts, stride,
};
use crate::gpu::model::linear::linears;
use crate::gpu::model::recorder::Recorder;
use crate::gpu::model::workspace::Allocator;
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::config::{Experts, ModelConfig};
use crate::model::weights::ExpertWeights;

/// Rows of the largest steps whose experts are matrix-vector products. Experts have a few of
/// their pairs at most.
const MATVEC_ROWS: usize = 32;
/// Rows of the largest steps whose router is a matrix-vector product.
const ROUTER_MATVEC_ROWS: usize = 8;

/// Weights of a layer's experts.
pub(in crate::gpu) struct GpuExperts {
    pub sizes: Experts,
    pre_norm: GpuBuffer,
    router_scale: GpuBuffer,
    router: GpuMatrix,
    per_expert_scale: GpuBuffer,
    gate_up: GpuMatrix,
    down: GpuMatrix,
    /// See [`AddExpertsRmsNorm`].
    pub norms: GpuBuffer,
}

impl GpuExperts {
    /// `post_norm`: applied to the outputs of MLP and experts together. `scalar`: the layer's.
    pub fn new(
        gpu: &Gpu,
        sizes: Experts,
        hidden: usize,
        weights: ExpertWeights<GpuMatrix, GpuBuffer>,
        (post_norm, scalar): (&GpuBuffer, f32),
    ) -> Result<Self> {
        let bytes = 4 * AddExpertsRmsNorm::norm_stride(hidden) as u64;
        let words = AddExpertsRmsNorm::norm_words(hidden) as u64;
        let norms = gpu.buffer("norms of experts", 4 * words)?;
        gpu.queue().write_buffer(&norms, 3 * bytes, &scalar.to_le_bytes());
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let sources = [&weights.post_mlp_norm, &weights.post_norm, post_norm];
        for (source, at) in sources.into_iter().zip(0..) {
            encoder.copy_buffer_to_buffer(source, 0, &norms, at * bytes, 4 * hidden as u64);
        }
        gpu.queue().submit([encoder.finish()]);
        Ok(GpuExperts {
            sizes,
            pre_norm: weights.pre_norm,
            router_scale: weights.router_scale,
            router: weights.router,
            per_expert_scale: weights.per_expert_scale,
            gate_up: weights.gate_up,
            down: weights.down,
            norms,
        })
    }
}

impl GpuExperts {
    /// Bytes that one token does not read.
    pub fn unread_bytes(&self) -> u64 {
        self.sizes.unread(self.gate_up.bytes() + self.down.bytes())
    }
}

/// Activations of experts, sized for the largest step.
pub(in crate::gpu) struct ExpertBuffers<B = GpuBuffer> {
    /// Normed inputs of experts and router `[rows, hidden]`.
    inputs: B,
    routed: B,
    /// `[rows, experts]`
    logits: B,
    /// The chosen experts and their weights `[rows, top_k]`.
    chosen: B,
    pub weights: B,
    /// See [`SortExperts`].
    pairs: B,
    tiles: B,
    /// `[rows · top_k, intermediate]`. Padding stays zero.
    hidden: B,
    /// `[rows · top_k, hidden]`
    pub results: B,
}

impl<B> ExpertBuffers<B> {
    /// `None` without experts.
    pub fn new<A: Allocator<Buffer = B>>(
        gpu: &A,
        config: &ModelConfig,
        rows: usize,
    ) -> Result<Option<Self>> {
        let Some(sizes) = config.experts() else { return Ok(None) };
        let words = |label: &str, rows: usize, cols: usize| {
            gpu.buffer(label, 4 * rows as u64 * cols as u64)
        };
        let hidden = stride(config.hidden_size);
        let pairs = rows * sizes.top_k;
        let tiles = |tile| SortExperts { experts: sizes, tile }.most_tiles(rows);
        let tiles = tiles(ExpertsMatmul::TILE).max(tiles(ExpertsMatvec::TILE));
        Ok(Some(ExpertBuffers {
            inputs: words("input of experts", rows, hidden)?,
            routed: words("input of the router", rows, hidden)?,
            logits: words("router logits", rows, stride(sizes.count))?,
            chosen: words("chosen experts", pairs, 1)?,
            weights: words("weights of experts", pairs, 1)?,
            pairs: words("sorted pairs", pairs, 1)?,
            tiles: words("tiles of pairs", tiles, 4)?,
            hidden: words("hidden of experts", pairs, stride(sizes.intermediate_size))?,
            results: words("results of experts", pairs, hidden)?,
        }))
    }
}

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
