//! RMS norms of the residual stream.

use crate::gpu::device::{grid::Grid, source::KernelSource, tuning::KernelTarget};
use crate::gpu::kernels::{Kernel, epilogue::ActivationFormat, stride, wgsl::Wgsl};

const WORKGROUP: usize = 256;
const LARGE_WORKGROUP: usize = 1024;

/// Bindings: x `[rows, stride(n)]`, weight `[n]`, out `[rows, stride(n)]`.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm {
    pub n: usize,
    pub eps: f32,
}

impl Kernel for RmsNorm {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("N", self.n)
            .uint("STRIDE", stride(self.n))
            .float("EPS", self.eps)
            .reductions(target, WORKGROUP)
            .kernel("shaders/norm/rms_norm.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}

/// Bindings: x `[rows, stride(n)]` (updated), branch `[parts, rows, stride(n)]`, post weight `[n]`,
/// next weight `[n]`, uniform, then those of `epilogue` for `n` columns. The branch is summed over
/// its parts. The uniform's first f32 is the layer's scalar.
#[derive(Debug, Clone, Copy)]
pub struct AddRmsNorm {
    pub n: usize,
    pub eps: f32,
    /// Number of sums that make up the branch, see [`MatmulCoop`](super::MatmulCoop).
    pub parts: usize,
    /// Distance from one part to the next, in elements.
    pub part_stride: usize,
    pub epilogue: ActivationFormat,
}

impl Kernel for AddRmsNorm {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default()
            .uint("N", self.n)
            .float("EPS", self.eps)
            .uint("PARTS", self.parts)
            .uint("PART_STRIDE", self.part_stride);
        let (wgsl, file) = match target.tuning.large_workgroups
            && stride(self.n) <= 8 * LARGE_WORKGROUP
        {
            true => {
                (wgsl.reductions(target, LARGE_WORKGROUP), "shaders/norm/add_rms_norm_large.wgsl")
            }
            false => (wgsl.reductions(target, WORKGROUP), "shaders/norm/add_rms_norm.wgsl"),
        };
        self.epilogue.add(wgsl, target, 5, self.n).kernel(file)
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}

/// Bindings: x `[rows, stride(n)]` (updated), branch `[parts, rows, stride(n)]`, post weight `[n]`,
/// then those of `epilogue` for `n` columns. The branch is summed over its parts. The epilogue's
/// results are x times [`RmsNormAdd::SCALE`].
#[derive(Debug, Clone, Copy)]
pub struct RmsNormAdd {
    pub n: usize,
    pub eps: f32,
    /// As in [`AddRmsNorm`].
    pub parts: usize,
    pub part_stride: usize,
    pub epilogue: ActivationFormat,
}

impl RmsNormAdd {
    /// Scale of the results. They are not normed, and sums of many layers may exceed f16's range.
    /// Small values lose no important bits by it.
    pub const SCALE: f32 = 1.0 / 64.0;
}

impl Kernel for RmsNormAdd {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default()
            .uint("N", self.n)
            .float("EPS", self.eps)
            .uint("PARTS", self.parts)
            .uint("PART_STRIDE", self.part_stride)
            .float("SCALE", Self::SCALE)
            .reductions(
                target,
                if target.tuning.large_workgroups { LARGE_WORKGROUP } else { WORKGROUP },
            );
        self.epilogue.add(wgsl, target, 3, self.n).kernel("shaders/norm/rms_norm_add.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}
