//! Choosing the scales of stored weights.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Kernel, wgsl::Wgsl};
use crate::quant::Dtype;
use crate::quant::methods::{HQQ_BETA, HQQ_BETA_GROWTH, HQQ_ITERATIONS, HQQ_P, Spec};

/// [`Method::Hqq`](crate::quant::methods::Method) for every group of a matrix, with one invocation
/// for each group. Its twin is [`Spec::quantize`].
///
/// Bindings: the stored `[rows, cols]` (f32, f16 or bf16; the last word may be padded), chosen
/// `[rows, groups]`. A word of chosen has the bits of the f16 scale and, in the high half, of the
/// offset. A group with a scale or offset beyond f16 gets an infinite scale.
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
        Wgsl::default()
            .uint("WORKGROUP", Self::WORKGROUP)
            .uint("ROWS", self.rows)
            .uint("COLS", self.cols)
            .uint("GROUP", self.spec.group_columns(self.cols))
            .uint("ROW_GROUPS", self.spec.groups(self.cols))
            .uint("ITERATIONS", HQQ_ITERATIONS)
            .float("LOWEST", lowest as f32)
            .float("HIGHEST", highest as f32)
            .optional_float("P", HQQ_P)
            .optional_float("BETA", HQQ_BETA)
            .optional_float("BETA_GROWTH", HQQ_BETA_GROWTH)
            .optional_bool("EITHER_SIGN", lowest == -8)
            .choose(match self.dtype {
                Dtype::F16 => "source_f16",
                Dtype::BF16 => "source_bf16",
                _ => "source_f32",
            })
            .choose(match symmetric {
                true => "hqq_scale",
                false => "hqq_offset",
            })
            .kernel("shaders/load/quantize_hqq.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let groups = self.rows * self.spec.groups(self.cols);
        Grid::folded(groups.div_ceil(Self::WORKGROUP), Extent::Fixed(1))
    }
}
