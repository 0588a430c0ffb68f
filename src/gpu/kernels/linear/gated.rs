//! The MLP's activation: gelu(gate) · up.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::epilogue::ActivationFormat;
use crate::gpu::kernels::linear::products::{Linear, tile_sizes};
use crate::gpu::kernels::wgsl::Wgsl;
use crate::gpu::kernels::{Cost, Kernel, stride};

/// Bindings: gate and up `[rows, stride(2 · n)]`, then those of `epilogue` for `n` columns.
#[derive(Debug, Clone, Copy)]
pub struct GeluMul {
    pub n: usize,
    pub epilogue: ActivationFormat,
    pub tail: Option<UpTail>,
}

/// The last columns of up, computed by a product of their own. They are a sum of parts
/// `[parts, rows, cols]`, in another binding after the first.
#[derive(Debug, Clone, Copy)]
pub struct UpTail {
    pub cols: usize,
    pub parts: usize,
    /// Distance from one part to the next, in elements.
    pub part_stride: usize,
}

impl GeluMul {
    const WORKGROUP: usize = 64;
}

impl Kernel for GeluMul {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default()
            .uint("WORKGROUP", Self::WORKGROUP)
            .uint("N", self.n)
            .uint("IN_STRIDE", stride(2 * self.n));
        let (wgsl, own) = match self.tail {
            None => (wgsl.choose("up_whole"), 1),
            Some(UpTail { cols, parts, part_stride }) => (
                wgsl.uint("TAIL_COLS", cols)
                    .uint("TAIL_PARTS", parts)
                    .uint("TAIL_STRIDE", part_stride)
                    .choose("up_tail"),
                2,
            ),
        };
        self.epilogue.add(wgsl, target, own, self.n).kernel("shaders/linear/gelu_mul.wgsl")
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

/// Fuses the products of gate and up, one matrix `[2 · n, cols]`, with their activation. It takes
/// one row of int8 activations and writes int8. Bindings: data, scales, x, its groups, step, then
/// those of [`ActivationFormat::Q8Block32`] for `n` columns. The results' buffers must not be those
/// of x.
#[derive(Debug, Clone, Copy)]
pub struct MatvecQ8Gated(pub Linear);

impl MatvecQ8Gated {
    const WORKGROUP: usize = 1024;
    /// Two of gate and two of up make a group of 32 results.
    const TILES: usize = 4;

    /// Requires interleaved weights, whole groups of results, and large workgroups. With smaller
    /// ones the fused kernel is slower than a separate activation.
    pub fn can_run(&self, target: &KernelTarget) -> bool {
        target.tuning.large_workgroups
            && self.0.interleaved16
            && self.0.rows.is_multiple_of(16 * Self::TILES)
    }
}

impl Kernel for MatvecQ8Gated {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let linear = &self.0;
        let wgsl = linear.sizes().bool("OVER_OUTPUTS", linear.over_outputs);
        let wgsl = tile_sizes(wgsl, Self::WORKGROUP, Self::TILES, 1, 1).uint("SPLITS", 1).weights(
            linear.format,
            linear.cols,
            linear.interleaved16,
        );
        ActivationFormat::Q8Block32
            .add(wgsl, target, 5, linear.rows / 2)
            .kernel("shaders/linear/matvec_q8_gated.wgsl")
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::folded(self.0.rows / (16 * Self::TILES), Extent::Fixed(1))
    }
}
