//! Kernels without matrices or attention: embedding, activation, quantization, selection.

use super::{Kernel, stride};
use crate::{
    gpu::{Binding, Extent, Grid, KernelSource, Variant, wgsl::Wgsl},
    quant::PackFormat,
};

/// Bindings: data, scales, rows, sampled `[slots]`, x `[rows, stride(cols)]`. Writes the rows whose
/// token lies in `first_row..first_row + rows`.
#[derive(Debug, Clone, Copy)]
pub struct Embed {
    pub format: PackFormat,
    pub first_row: usize,
    pub rows: usize,
    pub cols: usize,
    pub scale: f32,
}

impl Kernel for Embed {
    fn source(&self, _: &Variant) -> KernelSource {
        KernelSource {
            name: "embed",
            wgsl: Wgsl::new()
                .uint("WORKGROUP", 64)
                .uint("FIRST_ROW", self.first_row)
                .uint("ROWS", self.rows)
                .uint("COLS", stride(self.cols))
                .uint("TRUE_COLS", self.cols)
                .float("SCALE", self.scale)
                .part(include_str!("../../../shaders/common/octet.wgsl"))
                .weights(self.format, self.cols)
                .part(include_str!("../../../shaders/common/step.wgsl"))
                .part(include_str!("../../../shaders/embed.wgsl"))
                .finish(),
            bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid::rows()
    }
}

/// Bindings: gate and up `[rows, stride(2 · n)]`, out `[rows, stride(n)]`.
#[derive(Debug, Clone, Copy)]
pub struct GeluMul {
    pub n: usize,
}

impl GeluMul {
    const WORKGROUP: usize = 64;
}

impl Kernel for GeluMul {
    fn source(&self, _: &Variant) -> KernelSource {
        KernelSource {
            name: "gelu_mul",
            wgsl: Wgsl::new()
                .uint("WORKGROUP", Self::WORKGROUP)
                .uint("N", self.n)
                .uint("IN_STRIDE", stride(2 * self.n))
                .uint("OUT_STRIDE", stride(self.n))
                .part(include_str!("../../../shaders/gelu_mul.wgsl"))
                .finish(),
            bindings: &[Binding::Read, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid([Extent::Rows(1), Extent::Fixed(self.n.div_ceil(Self::WORKGROUP) as u32), Extent::Fixed(1)])
    }
}

/// Bindings: x `[rows, stride(cols)]`, quants (four int8 a word), groups `[rows, stride(cols) / 32]`
/// of (scale, scale · sum).
#[derive(Debug, Clone, Copy)]
pub struct QuantizeRows {
    pub cols: usize,
}

impl Kernel for QuantizeRows {
    fn source(&self, _: &Variant) -> KernelSource {
        KernelSource {
            name: "quantize_rows",
            wgsl: Wgsl::new()
                .uint("WORKGROUP", 64)
                .uint("COLS", stride(self.cols))
                .part(include_str!("../../../shaders/quantize_rows.wgsl"))
                .finish(),
            bindings: &[Binding::Read, Binding::ReadWrite, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid::rows()
    }
}

/// Bindings: x `[rows, stride(cols)]`, outputs (row indexes), out `[outputs, stride(cols)]`.
#[derive(Debug, Clone, Copy)]
pub struct GatherRows {
    pub cols: usize,
}

impl Kernel for GatherRows {
    fn source(&self, _: &Variant) -> KernelSource {
        KernelSource {
            name: "gather_rows",
            wgsl: Wgsl::new()
                .uint("WORKGROUP", 64)
                .uint("COLS", stride(self.cols))
                .part(include_str!("../../../shaders/gather_rows.wgsl"))
                .finish(),
            bindings: &[Binding::Read, Binding::Read, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid::outputs()
    }
}

/// Bindings: logits `[outputs, n]`, outputs (row indexes), rows, sampled `[slots]`.
#[derive(Debug, Clone, Copy)]
pub struct Argmax {
    pub n: usize,
}

impl Kernel for Argmax {
    fn source(&self, _: &Variant) -> KernelSource {
        KernelSource {
            name: "argmax",
            wgsl: Wgsl::new()
                .uint("WORKGROUP", 256)
                .uint("N", self.n)
                .uint("STRIDE", self.n)
                .part(include_str!("../../../shaders/common/step.wgsl"))
                .part(include_str!("../../../shaders/argmax.wgsl"))
                .finish(),
            bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid::outputs()
    }
}
