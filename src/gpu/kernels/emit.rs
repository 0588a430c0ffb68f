//! The forms in which kernels leave activations for the next matrix product.

use crate::gpu::{
    device::{
        dispatch::KernelSource,
        grid::{Extent, Grid},
        tuning::KernelTarget,
    },
    kernels::{Kernel, stride, wgsl::Wgsl},
};

/// Rows of [`Emit::Halves`] are padded to a multiple of this.
pub const ROW_TILE: usize = 128;

/// What a kernel makes of its results. The buffers are bound after the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// f32 `[rows, stride(cols)]`.
    Floats,
    /// int8 `[rows, stride(cols)]`, four a word; f32 `[rows, stride(cols) / 32, 2]`: scale, scale ·
    /// sum.
    Q8,
    /// f16 `[stride(cols) / 32, m_stride, 32]`, see `emit_halves.wgsl` for the order of the
    /// columns. `m_stride` is how many rows the buffer has room for, a multiple of [`ROW_TILE`].
    Halves { m_stride: usize },
}

impl Emit {
    /// Adds the fragment that writes results of `cols` columns to bindings from `at` on.
    pub(super) fn add(self, wgsl: Wgsl, target: &KernelTarget, at: usize, cols: usize) -> Wgsl {
        let wgsl = wgsl.uint("EMIT", at).uint("EMIT_COLS", stride(cols));
        match self {
            Emit::Floats => wgsl.choose("emit_floats"),
            // Where other kernels rely on it too that subgroups are neighbours.
            Emit::Q8
                if target.variant.subgroups_contiguous
                    && target.variant.subgroup_size >= Some(8) =>
            {
                wgsl.choose("emit_q8_subgroups")
            }
            Emit::Q8 => wgsl.choose("emit_q8"),
            Emit::Halves { m_stride } => wgsl.uint("M_STRIDE", m_stride).choose("emit_halves"),
        }
    }

    /// The names of its bindings.
    pub fn bindings(self) -> &'static [&'static str] {
        match self {
            Emit::Floats => &["out"],
            Emit::Q8 => &["quants", "quant_groups"],
            Emit::Halves { .. } => &["halves"],
        }
    }
}

/// Activations in another form. Bindings: x `[rows, stride(cols)]` f32, then those of `emit`.
#[derive(Debug, Clone, Copy)]
pub struct Convert {
    pub cols: usize,
    pub emit: Emit,
    /// One row for each output row rather than for each token.
    pub over_outputs: bool,
}

impl Kernel for Convert {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default().uint("WORKGROUP", 256);
        self.emit.add(wgsl, target, 1, self.cols).kernel("shaders/linear/convert.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let rows = if self.over_outputs { Extent::Outputs } else { Extent::Rows(1) };
        Grid([rows, Extent::Fixed(1), Extent::Fixed(1)])
    }
}
