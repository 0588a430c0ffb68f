//! From token ids to the first hidden state, and what per-layer embeddings add.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{
    Kernel, epilogue::ActivationFormat, norm::RmsNormAdd, stride, wgsl::Wgsl,
};
use crate::quant::PackFormat;

/// Bindings: data, scales, rows, sampled `[slots]`, x `[rows, stride(cols)]`. Writes the rows whose
/// token is in `first_row..first_row + rows`.
#[derive(Debug, Clone, Copy)]
pub struct Embed {
    pub format: PackFormat,
    pub first_row: usize,
    pub rows: usize,
    pub cols: usize,
    pub scale: f32,
    /// See [`Linear`](super::Linear).
    pub interleaved16: bool,
}

impl Kernel for Embed {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", 64)
            .uint("FIRST_ROW", self.first_row)
            .uint("ROWS", self.rows)
            .uint("COLS", stride(self.cols))
            .uint("TRUE_COLS", self.cols)
            .float("SCALE", self.scale)
            .weights(self.format, self.cols, self.interleaved16)
            .kernel("shaders/embed/embed.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}

/// Bindings: x `[rows, stride(cols)]`, outputs (row indexes), out `[outputs, stride(cols)]`.
#[derive(Debug, Clone, Copy)]
pub struct GatherRows {
    pub cols: usize,
}

impl Kernel for GatherRows {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", 64)
            .uint("COLS", stride(self.cols))
            .kernel("shaders/embed/gather_rows.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::outputs()
    }
}

/// Bindings: data and scales of the table `[vocab, layers · size]`, rows, sampled `[slots]`, norm
/// `[size]`, x `[rows, stride(layers · size)]`. x holds projections of the embedding, which the
/// kernel replaces by the vectors. It skips rows whose token is not in
/// `first_row..first_row + rows`.
#[derive(Debug, Clone, Copy)]
pub struct PerLayerInputs {
    pub format: PackFormat,
    pub first_row: usize,
    pub rows: usize,
    pub layers: usize,
    pub size: usize,
    /// Factor on projections.
    pub projection_scale: f32,
    pub eps: f32,
    /// See [`Linear`](super::Linear).
    pub interleaved16: bool,
}

impl Kernel for PerLayerInputs {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let cols = self.layers * self.size;
        Wgsl::default()
            .uint("FIRST_ROW", self.first_row)
            .uint("ROWS", self.rows)
            .uint("SIZE", self.size)
            .uint("STRIDE", stride(cols))
            .float("PROJECTION_SCALE", self.projection_scale)
            .float("TABLE_SCALE", (self.size as f32).sqrt())
            .float("EPS", self.eps)
            .weights(self.format, cols, self.interleaved16)
            .reductions(target, 64)
            .kernel("shaders/embed/per_layer_inputs.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Rows(1), Extent::Fixed(self.layers as u32), Extent::Fixed(1)])
    }
}

/// Bindings: gate `[rows, stride(n)]`, all layers' vectors `[rows, vectors_stride]`, a uniform,
/// then those of `epilogue` for `n` columns. gate is a product of the results of [`RmsNormAdd`].
/// The uniform's first u32 is the layer's first column of the vectors.
#[derive(Debug, Clone, Copy)]
pub struct PerLayerGate {
    pub n: usize,
    pub vectors_stride: usize,
    pub epilogue: ActivationFormat,
}

impl PerLayerGate {
    const WORKGROUP: usize = 64;
}

impl Kernel for PerLayerGate {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default()
            .uint("WORKGROUP", Self::WORKGROUP)
            .uint("N", self.n)
            .uint("IN_STRIDE", stride(self.n))
            .uint("VECTORS_STRIDE", self.vectors_stride)
            .float("GATE_SCALE", 1.0 / RmsNormAdd::SCALE);
        self.epilogue.add(wgsl, target, 3, self.n).kernel("shaders/embed/per_layer_gate.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let fours = stride(self.n) / 4;
        Grid([
            Extent::Rows(1),
            Extent::Fixed(fours.div_ceil(Self::WORKGROUP) as u32),
            Extent::Fixed(1),
        ])
    }
}
