//! Kernels without matrices or attention: embedding, activation, selection.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Kernel, stride, wgsl::Wgsl};
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

/// The first half of [`Argmax`]. Bindings: logits `[outputs, n]`, parts `[outputs, PARTS, 2]`.
#[derive(Debug, Clone, Copy)]
pub struct ArgmaxParts {
    pub n: usize,
}

/// Bindings: parts, outputs (row indexes), rows, sampled `[slots]`.
#[derive(Debug, Clone, Copy)]
pub struct Argmax {
    pub n: usize,
}

impl Argmax {
    /// Parts of a row that are searched at the same time.
    pub const PARTS: usize = 64;
}

impl Kernel for ArgmaxParts {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", self.n.div_ceil(Argmax::PARTS).next_power_of_two().clamp(32, 256))
            .uint("N", self.n)
            .uint("PARTS", Argmax::PARTS)
            .kernel("shaders/sample/argmax_parts.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Outputs, Extent::Fixed(Argmax::PARTS as u32), Extent::Fixed(1)])
    }
}

impl Kernel for Argmax {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", Self::PARTS)
            .uint("N", self.n)
            .uint("PARTS", Self::PARTS)
            .kernel("shaders/sample/argmax.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::outputs()
    }
}
