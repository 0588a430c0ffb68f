//! Weights that the host packs directly in memory that it shares with the device. This needs no
//! copy and no kernel.

use std::time::Duration;

use rayon::prelude::*;
use web_time::Instant;

use crate::error::{Error, Result};
use crate::gpu::device::faults::one_line;
use crate::gpu::kernels::TILE_ROWS;
use crate::gpu::weights::matrix::{GpuMatrix, MatrixPart, tile};
use crate::gpu::weights::slices::Slice;
use crate::quant::{Dtype, PackFormat, pack_into};

/// Bytes of a file that one thread packs at a time. The result fits its core's cache until it is
/// written.
const PIECE_BYTES: usize = 128 << 10;

/// Writes slices to mapped buffers.
#[derive(Default)]
pub(super) struct InPlaceSink {
    bytes: u64,
    writing: Duration,
}

impl InPlaceSink {
    /// Writes a slice of a mapped matrix.
    ///
    /// Errors: those of packing.
    pub fn write(&mut self, matrix: &GpuMatrix, slice: Slice<'_, '_, &MatrixPart>) -> Result<()> {
        let &GpuMatrix { format, cols, interleaved16, .. } = matrix;
        let row_bytes = slice.bytes.len() / slice.rows.max(1);
        let rows = Rows { dtype: slice.reader.dtype(), row_bytes, format, cols, interleaved16 };
        let begin = Instant::now();
        if let Err(reason) = rows.write(slice.bytes, slice.part_row, slice.part) {
            // Packing the whole slice names the faulty row as the other ways do.
            let named = slice.reader.pack(slice.row, slice.bytes).err();
            return Err(named.unwrap_or_else(|| Error::tensor(slice.reader.name, reason)));
        }
        self.bytes += slice.bytes.len() as u64;
        self.writing += begin.elapsed();
        Ok(())
    }

    pub fn report(&self) {
        log::info!("{} bytes read and laid out in place in {:.2?}", self.bytes, self.writing);
    }
}

/// The stored format of rows, and their layout on the device.
struct Rows {
    dtype: Dtype,
    row_bytes: usize,
    format: PackFormat,
    cols: usize,
    interleaved16: bool,
}

impl Rows {
    /// Writes rows to a mapped part from its row `first` on. `first` must be even, because wgpu
    /// maps from multiples of 8 bytes. Threads map runs of [`TILE_ROWS`] rows.
    fn write(&self, stored: &[u8], first: usize, part: &MatrixPart) -> Result<(), String> {
        let rows = (PIECE_BYTES / self.row_bytes).max(1).next_multiple_of(TILE_ROWS);
        let pieces = stored.par_chunks(rows * self.row_bytes).enumerate();
        pieces.try_for_each_init(
            Default::default,
            |[data, scales]: &mut [Vec<u32>; 2], (index, stored)| {
                let (first, rows) = (first + index * rows, stored.len() / self.row_bytes);
                let (data_words, scale_words) =
                    (self.format.data_words(self.cols), self.format.scale_words(self.cols));
                data.resize(rows * data_words, 0);
                scales.resize(rows * scale_words, 0);
                pack_into(self.dtype, stored, self.cols, self.format, data, scales)?;
                self.put(data, first * data_words, data_words, 4, &part.data)?;
                self.put(
                    scales,
                    first * scale_words,
                    scale_words,
                    self.format.scale_unit(),
                    &part.scales,
                )
            },
        )
    }

    /// Writes words of rows to a buffer from word `at` on. They are interleaved in units of `unit`
    /// words if needed.
    fn put(
        &self,
        words: &[u32],
        at: usize,
        row_words: usize,
        unit: usize,
        buffer: &wgpu::Buffer,
    ) -> Result<(), String> {
        if words.is_empty() {
            return Ok(());
        }
        let range = 4 * at as u64..4 * (at + words.len()) as u64;
        let mut view = buffer.get_mapped_range_mut(range).map_err(|error| one_line(&error))?;
        match self.interleaved16 {
            true => view.copy_from_slice(bytemuck::cast_slice(&tile(words, row_words, unit))),
            false => view.copy_from_slice(bytemuck::cast_slice(words)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gpu::device::{gpu::Gpu, select::DeviceOptions},
        quant::{native_format, pack_rows},
    };

    /// Random bytes, but with finite scales.
    fn stored(dtype: Dtype, rows: usize, cols: usize) -> Vec<u8> {
        let len = rows * dtype.bytes_of(cols).unwrap();
        let mut bytes: Vec<u8> = (0..len).map(|i| (i * i / 7 + i) as u8).collect();
        match dtype {
            // Clears a bit of the exponent, so that not all its bits are ones.
            Dtype::BF16 => bytes.iter_mut().skip(1).step_by(2).for_each(|byte| *byte &= 0xbf),
            _ => {
                for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                    let at = if dtype == Dtype::Q6_K { 208 } else { 0 };
                    block[at + 1] &= 0x9f;
                    block[3] &= if dtype == Dtype::Q4_K { 0x9f } else { 0xff };
                }
            }
        }
        bytes
    }

    /// Tests rows that begin within a buffer. They come in several pieces, the last one shorter,
    /// plain or interleaved.
    #[test]
    fn rows_lie_as_packing_and_tiling_lay_them() {
        let gpu = pollster::block_on(Gpu::open(&DeviceOptions::default())).unwrap();
        for (dtype, interleaved16) in [
            (Dtype::Q4_0, false),
            (Dtype::Q4_0, true),
            (Dtype::Q4_K, false),
            (Dtype::Q4_K, true),
            (Dtype::Q5_0, false),
            (Dtype::Q6_K, false),
            (Dtype::Q8_0, false),
            (Dtype::BF16, false),
        ] {
            let (first, cols, format) = (32, 2560, native_format(dtype));
            let row_bytes = dtype.bytes_of(cols).unwrap();
            let rows = (5 * PIECE_BYTES / 2 / row_bytes).next_multiple_of(TILE_ROWS);
            let bytes = stored(dtype, rows, cols);
            let packed = pack_rows(dtype, &bytes, rows, cols, format).unwrap();
            let [data, scales] = [format.data_words(cols), format.scale_words(cols)]
                .map(|words| gpu.upload_buffer(4 * ((first + rows) * words) as u64).unwrap());
            let part = MatrixPart { first_row: 0, rows: first + rows, data, scales };
            Rows { dtype, row_bytes, format, cols, interleaved16 }
                .write(&bytes, first, &part)
                .unwrap();
            for (buffer, words, unit) in
                [(part.data, packed.data, 4), (part.scales, packed.scales, format.scale_unit())]
            {
                let row_words = words.len() / rows;
                let expected = if interleaved16 { tile(&words, row_words, unit) } else { words };
                buffer.unmap();
                let written: Vec<u32> = pollster::block_on(gpu.download(&buffer)).unwrap();
                let (before, written) = written.split_at(first * row_words);
                assert!(
                    before.iter().all(|word| *word == 0),
                    "{dtype}, interleaved16: {interleaved16}"
                );
                assert!(
                    written[..expected.len()] == expected,
                    "{dtype}, interleaved16: {interleaved16}"
                );
            }
        }
    }
}
