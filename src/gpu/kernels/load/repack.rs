//! Packing of weights on the device while a model is loaded.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Kernel, wgsl::Wgsl};
use crate::quant::{Dtype, PackFormat, native_format};

/// Packs rows of a matrix from a file's bytes into the words of its [`native_format`]. Its twin is
/// [`pack_rows`](crate::quant::pack_rows) and, if `interleaved16`, [`tile`](crate::gpu::tile).
///
/// Bindings: stored bytes, data and scales of consecutive rows, slots. The stored bytes are
/// [`Repack::header`], the rows, and [`Repack::SLACK_BYTES`] that are read but not used. The
/// matrix's slot gets the lowest number of a faulty row. Its value, scale or offset is NaN,
/// infinite or beyond f16.
#[derive(Debug, Clone, Copy)]
pub struct Repack {
    pub dtype: Dtype,
    pub cols: usize,
    /// Whole runs of [`TILE_ROWS`](crate::gpu::kernels::TILE_ROWS) if they are interleaved.
    pub rows: usize,
    pub interleaved16: bool,
}

impl Repack {
    pub const HEADER_BYTES: usize = 16;
    pub const SLACK_BYTES: usize = 32;
    const WORKGROUP: usize = 64;

    /// Whether there is a kernel for rows stored as `dtype` that are to be `format`.
    pub fn supports(dtype: Dtype, format: PackFormat) -> bool {
        let is_known = match dtype {
            Dtype::Packed(PackFormat::Int { bits, .. }) => bits == 4 || bits == 8,
            Dtype::Packed(_) => false,
            _ => true,
        };
        is_known && format == native_format(dtype)
    }

    /// The header before the rows. `rows` rows go to the buffers from row `first` on. Faults count
    /// them from `number` on and are kept in `slot`.
    pub fn header(rows: usize, first: usize, number: usize, slot: usize) -> [u32; 4] {
        [rows, first, number, slot].map(|number| number as u32)
    }

    fn format(&self) -> PackFormat {
        native_format(self.dtype)
    }

    /// Units of a row, one for each invocation. A unit is two groups of a block type, else four
    /// words of data or one of scales.
    fn row_units(&self) -> usize {
        let format = self.format();
        match self.dtype.block_len() {
            1 => format.data_words(self.cols) / 4 + format.scale_words(self.cols),
            _ => (self.cols / 32).div_ceil(2),
        }
    }

    fn blocks(&self, wgsl: Wgsl) -> KernelSource {
        match self.dtype {
            Dtype::Q4_K => {
                return wgsl.kernel("shaders/load/repack_q4_k.wgsl");
            }
            Dtype::Q6_K => {
                let wgsl = wgsl.uint("LOW_VEC4S", self.cols / 32);
                return wgsl.kernel("shaders/load/repack_q6_k.wgsl");
            }
            _ => {}
        }
        let wgsl = wgsl
            .uint("BLOCK_BYTES", self.dtype.block_bytes())
            .uint("GROUPS", self.cols / 32)
            .bool("OFFSET", matches!(self.format(), PackFormat::Int { offset: true, .. }));
        let wgsl = match self.dtype {
            Dtype::Q8_0 => wgsl.choose("blocks_bytes"),
            Dtype::IQ4_XS => wgsl.choose("blocks_iq4_xs"),
            Dtype::Q5_0 | Dtype::Q5_1 => wgsl.choose("blocks_fifths"),
            Dtype::Q5_K => wgsl.choose("blocks_q5_k"),
            _ => wgsl.choose("blocks_nibbles"),
        };
        wgsl.kernel("shaders/load/repack_blocks.wgsl")
    }

    fn words(&self, wgsl: Wgsl) -> KernelSource {
        let data_bytes = match self.dtype {
            Dtype::Packed(format) => 4 * format.data_words(self.cols),
            floats => self.cols * floats.block_bytes(),
        };
        let [low, high] = match self.dtype {
            Dtype::F16 => [0x7c00, 0x7c00_0000],
            Dtype::BF16 => [0x7f80, 0x7f80_0000],
            _ => [0x7f80_0000; 2],
        };
        wgsl.uint("STORED_DATA_BYTES", data_bytes)
            .bool("FLOATS", self.dtype.is_float())
            .uint("LOW_EXPONENT", low)
            .uint("HIGH_EXPONENT", high)
            .kernel("shaders/load/repack_words.wgsl")
    }
}

impl Kernel for Repack {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default()
            .uint("WORKGROUP", Self::WORKGROUP)
            .uint("ROW_UNITS", self.row_units())
            // The caller has verified that these bytes can be counted.
            .uint("ROW_BYTES", self.dtype.bytes_of(self.cols).unwrap_or(0))
            .weight_layout(self.format(), self.cols, self.interleaved16);
        match self.dtype.block_len() {
            1 => self.words(wgsl),
            _ => self.blocks(wgsl),
        }
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::folded((self.rows * self.row_units()).div_ceil(Self::WORKGROUP), Extent::Fixed(1))
    }
}
