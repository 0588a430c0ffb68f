//! Choosing the scales of stored weights.

use crate::{
    gpu::{
        device::{
            grid::{Extent, Grid},
            source::KernelSource,
            tuning::KernelTarget,
        },
        kernels::{Kernel, wgsl::Wgsl},
    },
    quant::{
        Dtype,
        methods::{HQQ_BETA, HQQ_BETA_GROWTH, HQQ_ITERATIONS, HQQ_P, Spec},
    },
};

/// [`Method::Hqq`](crate::quant::methods::Method) for every group of a matrix, one invocation a
/// group; its twin is [`Spec::quantize`].
///
/// Bindings: the stored `[rows, cols]` (f32, f16 or bf16; the last word may be padded), chosen
/// `[rows, groups]`: the bits of the f16 scale and, in the high half, of the offset. A group with a
/// scale or offset beyond f16 gets an infinite scale.
#[derive(Debug, Clone, Copy)]
pub struct QuantizeHqq {
    pub spec: Spec,
    pub dtype: Dtype,
    pub rows: usize,
    pub cols: usize,
}

impl QuantizeHqq {
    const WORKGROUP: usize = 64;
}

impl Kernel for QuantizeHqq {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        let Spec { symmetric, .. } = self.spec;
        let (lowest, highest) = self.spec.levels();
        Wgsl::new()
            .uint("WORKGROUP", Self::WORKGROUP)
            .uint("ROWS", self.rows)
            .uint("COLS", self.cols)
            .uint("GROUP", self.spec.group_columns(self.cols))
            .uint("ROW_GROUPS", self.spec.groups(self.cols))
            .uint("ITERATIONS", HQQ_ITERATIONS)
            .float("LOWEST", lowest as f32)
            .float("HIGHEST", highest as f32)
            .float("P", HQQ_P)
            .float("BETA", HQQ_BETA)
            .float("BETA_GROWTH", HQQ_BETA_GROWTH)
            .bool("EITHER_SIGN", lowest == -8)
            .part("shaders/shared/half_bits.wgsl")
            .part(match self.dtype {
                Dtype::F16 => "shaders/shared/source_f16.wgsl",
                Dtype::BF16 => "shaders/shared/source_bf16.wgsl",
                _ => "shaders/shared/source_f32.wgsl",
            })
            .part(match symmetric {
                true => "shaders/shared/hqq_scale.wgsl",
                false => "shaders/shared/hqq_offset.wgsl",
            })
            .kernel("shaders/load/quantize_hqq.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let groups = self.rows * self.spec.groups(self.cols);
        Grid::folded(groups.div_ceil(Self::WORKGROUP), Extent::Fixed(1))
    }
}
