//! RMS norms of the residual stream.

use crate::gpu::{
    device::{
        dispatch::{Binding, KernelSource},
        grid::Grid,
        tuning::KernelTarget,
    },
    kernels::{Kernel, emit::Emit, stride, wgsl::Wgsl},
};

const WORKGROUP: usize = 256;
const WIDE_WORKGROUP: usize = 1024;

/// Bindings: x `[rows, stride(n)]`, weight `[n]`, out `[rows, stride(n)]`.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm {
    pub n: usize,
    pub eps: f32,
}

impl Kernel for RmsNorm {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        KernelSource {
            name: "rms_norm",
            wgsl: Wgsl::new()
                .uint("N", self.n)
                .uint("STRIDE", stride(self.n))
                .float("EPS", self.eps)
                .reductions(target, WORKGROUP)
                .part(include_str!("../../../shaders/norm/rms_norm.wgsl"))
                .finish(),
            bindings: vec![Binding::Read, Binding::Read, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}

/// Bindings: x `[rows, stride(n)]` (updated), branch `[parts, rows, stride(n)]` to be summed over
/// parts, post weight `[n]`, next weight `[n]`, uniform whose first f32 is the layer's scalar, then
/// those of `emit` for `n` columns.
#[derive(Debug, Clone, Copy)]
pub struct NormAddNorm {
    pub n: usize,
    pub eps: f32,
    /// Sums that make up the branch, see [`MatmulCoop`](super::MatmulCoop).
    pub parts: usize,
    /// From one part to the next, in elements.
    pub part_stride: usize,
    pub emit: Emit,
}

impl Kernel for NormAddNorm {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::new()
            .uint("N", self.n)
            .float("EPS", self.eps)
            .uint("PARTS", self.parts)
            .uint("PART_STRIDE", self.part_stride);
        let wgsl = match target.tuning.large_workgroups && stride(self.n) <= 8 * WIDE_WORKGROUP {
            true => wgsl
                .reductions(target, WIDE_WORKGROUP)
                .part(include_str!("../../../shaders/norm/norm_add_norm_wide.wgsl")),
            false => wgsl
                .reductions(target, WORKGROUP)
                .part(include_str!("../../../shaders/shared/branch.wgsl"))
                .part(include_str!("../../../shaders/norm/norm_add_norm.wgsl")),
        };
        let own =
            [Binding::ReadWrite, Binding::Read, Binding::Read, Binding::Read, Binding::Uniform];
        KernelSource {
            name: "norm_add_norm",
            wgsl: self.emit.add(wgsl, target, own.len(), self.n).finish(),
            bindings: self.emit.bindings(&own),
        }
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}

/// Bindings: x `[rows, stride(n)]` (updated), branch `[parts, rows, stride(n)]` to be summed over
/// parts, post weight `[n]`, then those of `emit`, in which x times [`NormAdd::SCALE`] is left, for
/// `n` columns.
#[derive(Debug, Clone, Copy)]
pub struct NormAdd {
    pub n: usize,
    pub eps: f32,
    /// As in [`NormAddNorm`].
    pub parts: usize,
    pub part_stride: usize,
    pub emit: Emit,
}

impl NormAdd {
    /// The stream is not normed: sums of many layers, which may grow beyond what f16 holds. Small
    /// values lose nothing by it that counts.
    pub const SCALE: f32 = 1.0 / 64.0;
}

impl Kernel for NormAdd {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::new()
            .uint("N", self.n)
            .float("EPS", self.eps)
            .uint("PARTS", self.parts)
            .uint("PART_STRIDE", self.part_stride)
            .float("SCALE", Self::SCALE)
            .reductions(
                target,
                if target.tuning.large_workgroups { WIDE_WORKGROUP } else { WORKGROUP },
            )
            .part(include_str!("../../../shaders/shared/branch.wgsl"))
            .part(include_str!("../../../shaders/norm/norm_add.wgsl"));
        let own = [Binding::ReadWrite, Binding::Read, Binding::Read];
        KernelSource {
            name: "norm_add",
            wgsl: self.emit.add(wgsl, target, own.len(), self.n).finish(),
            bindings: self.emit.bindings(&own),
        }
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}
