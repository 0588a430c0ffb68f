//! The formats in which kernels write activations for the next matrix product.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Kernel, stride, wgsl::Wgsl};

/// [`MatmulCoop`](crate::gpu::kernels::MatmulCoop) reads rows of [`ActivationFormat::F16Tiled`] in
/// tiles of this.
pub const ROW_TILE: usize = 128;

/// The format of a kernel's results. Its buffers are bound after the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationFormat {
    /// f32 `[rows, stride(cols)]`.
    F32,
    /// int8 `[rows, stride(cols)]`, four a word; f32 `[rows, stride(cols) / 32, 2]`: scale, scale ·
    /// sum.
    Q8Block32,
    /// f16 `[stride(cols) / block, m_stride, block]`. `epilogue_f16.wgsl` defines the order of the
    /// columns in a block of 16 or 32. `m_stride` is the number of rows that the kernel which reads
    /// them takes at once, or a multiple of it.
    F16Tiled { m_stride: usize, block: usize },
}

impl ActivationFormat {
    /// Adds the fragment that writes results of `cols` columns to bindings from `at` on.
    pub(in crate::gpu::kernels) fn add(
        self,
        wgsl: Wgsl,
        target: &KernelTarget,
        at: usize,
        cols: usize,
    ) -> Wgsl {
        let wgsl = wgsl.uint("EPILOGUE", at).uint("EPILOGUE_COLS", stride(cols));
        match self {
            ActivationFormat::F32 => wgsl.choose("epilogue_f32"),
            // Used where the subgroups are known to be contiguous.
            ActivationFormat::Q8Block32
                if target.variant.subgroups_contiguous
                    && target.variant.subgroup_size >= Some(8) =>
            {
                wgsl.choose("epilogue_q8_subgroups")
            }
            ActivationFormat::Q8Block32 => wgsl.choose("epilogue_q8"),
            ActivationFormat::F16Tiled { m_stride, block } => {
                wgsl.uint("M_STRIDE", m_stride).uint("BLOCK_COLS", block).choose("epilogue_f16")
            }
        }
    }

    /// The names of its bindings.
    pub fn bindings(self) -> &'static [&'static str] {
        match self {
            ActivationFormat::F32 => &["out"],
            ActivationFormat::Q8Block32 => &["quants", "quant_groups"],
            ActivationFormat::F16Tiled { .. } => &["halves"],
        }
    }
}

/// Converts activations. Bindings: x `[rows, stride(cols)]` f32, then those of `epilogue`.
#[derive(Debug, Clone, Copy)]
pub struct Convert {
    pub cols: usize,
    pub epilogue: ActivationFormat,
    /// Converts one row for each output row, not for each token.
    pub over_outputs: bool,
}

impl Kernel for Convert {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default().uint("WORKGROUP", 256);
        self.epilogue.add(wgsl, target, 1, self.cols).kernel("shaders/linear/convert.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let rows = if self.over_outputs { Extent::Outputs } else { Extent::Rows(1) };
        Grid([rows, Extent::Fixed(1), Extent::Fixed(1)])
    }
}
