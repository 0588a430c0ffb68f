//! RMS norms of the residual stream.

use super::{Kernel, stride};
use crate::gpu::{Binding, Grid, KernelSource, Variant, wgsl::Wgsl};

const WORKGROUP: usize = 256;

/// Bindings: x `[rows, stride(n)]`, weight `[n]`, out `[rows, stride(n)]`.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm {
    pub n: usize,
    pub eps: f32,
}

fn norm_constants(n: usize, eps: f32) -> Wgsl {
    Wgsl::new().uint("N", n).uint("STRIDE", stride(n)).float("EPS", eps)
}

impl Kernel for RmsNorm {
    fn source(&self, variant: &Variant) -> KernelSource {
        KernelSource {
            name: "rms_norm",
            wgsl: norm_constants(self.n, self.eps)
                .reductions(variant, WORKGROUP)
                .part(include_str!("../../../shaders/rms_norm.wgsl"))
                .finish(),
            bindings: &[Binding::Read, Binding::Read, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid::rows()
    }
}

/// Bindings: x `[rows, stride(n)]` (updated), branch `[rows, stride(n)]`, post weight `[n]`, next
/// weight `[n]`, out `[rows, stride(n)]`, uniform whose first f32 is the layer's scalar.
#[derive(Debug, Clone, Copy)]
pub struct NormAddNorm {
    pub n: usize,
    pub eps: f32,
}

impl Kernel for NormAddNorm {
    fn source(&self, variant: &Variant) -> KernelSource {
        KernelSource {
            name: "norm_add_norm",
            wgsl: norm_constants(self.n, self.eps)
                .reductions(variant, WORKGROUP)
                .part(include_str!("../../../shaders/norm_add_norm.wgsl"))
                .finish(),
            bindings: &[
                Binding::ReadWrite,
                Binding::Read,
                Binding::Read,
                Binding::Read,
                Binding::ReadWrite,
                Binding::Uniform,
            ],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid::rows()
    }
}
