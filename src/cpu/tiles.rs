//! Matrices of integers, laid out for the fast path.

use bytes::BytesMut;
use rayon::prelude::*;

use crate::cpu::arena::Arena;
use crate::cpu::simd::{FEATURES, Lanes, PackedTile};
use crate::cpu::weight_rows::WeightRows;
use crate::error::Result;
use crate::quant::{PackFormat, PackedRows};

/// Words of a row that are interleaved together: a cache line.
const LINE: usize = 16;

/// A matrix `[out_features, in_features]` of integers. [`FEATURES`] rows form a tile, in which each
/// word of a row lies beside that of the next row. Rows of zeros fill the last tile.
pub struct TiledMatrix {
    format: PackFormat,
    rows: usize,
    cols: usize,
    /// Lanes of words, `[tiles, data_words]`.
    data: BytesMut,
    /// Lanes of words, `[tiles, scale_words]`.
    scales: BytesMut,
}

impl TiledMatrix {
    /// Zeros, for [`TiledMatrix::store`]. Errors if they do not fit in memory.
    pub fn new(
        arena: &mut Arena,
        name: &str,
        format: PackFormat,
        rows: usize,
        cols: usize,
    ) -> Result<Self> {
        let mut zeros = |words: usize| {
            let lanes = rows.div_ceil(FEATURES).saturating_mul(words);
            arena.zeros(name, lanes.saturating_mul(size_of::<Lanes<u32>>()))
        };
        let (data, scales) = (zeros(format.data_words(cols))?, zeros(format.scale_words(cols))?);
        Ok(TiledMatrix { format, rows, cols, data, scales })
    }

    /// Stores rows from `first` on, a multiple of [`FEATURES`].
    pub fn store(&mut self, first: usize, rows: &PackedRows) {
        let first = first / FEATURES;
        let (data_words, scale_words) =
            (self.format.data_words(self.cols), self.format.scale_words(self.cols));
        let data = bytemuck::cast_slice_mut(&mut self.data);
        interleave(&rows.data, data_words, &mut data[first * data_words..]);
        let scales = bytemuck::cast_slice_mut(&mut self.scales);
        interleave(&rows.scales, scale_words, &mut scales[first * scale_words..]);
    }

    /// Bytes of weights and scales.
    pub fn bytes(&self) -> u64 {
        (self.data.len() + self.scales.len()) as u64
    }

    pub fn tile(&self, tile: usize) -> PackedTile<'_> {
        let (data_words, scale_words) =
            (self.format.data_words(self.cols), self.format.scale_words(self.cols));
        PackedTile {
            format: self.format,
            data: &bytemuck::cast_slice(&self.data)[tile * data_words..][..data_words],
            scales: &bytemuck::cast_slice(&self.scales)[tile * scale_words..][..scale_words],
        }
    }
}

impl WeightRows for TiledMatrix {
    fn out_features(&self) -> usize {
        self.rows
    }

    fn in_features(&self) -> usize {
        self.cols
    }

    fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        let (tile, lane) = (self.tile(row / FEATURES), row % FEATURES);
        let words = |words: &[Lanes<u32>]| words.iter().map(|words| words[lane]).collect();
        let (format, cols) = (self.format, self.cols);
        let (data, scales) = (words(tile.data), words(tile.scales));
        PackedRows { format, rows: 1, cols, data, scales }.dequantize_row(0, out);
    }
}

/// Stores rows of `words` words as tiles.
fn interleave(rows: &[u32], words: usize, tiles: &mut [Lanes<u32>]) {
    let rows = rows.par_chunks(words * FEATURES);
    rows.zip(tiles.par_chunks_mut(words)).for_each(|(rows, tile)| {
        for (line, tile) in tile.chunks_mut(LINE).enumerate() {
            for (lane, row) in rows.chunks_exact(words).enumerate() {
                for (lanes, word) in tile.iter_mut().zip(&row[line * LINE..]) {
                    lanes[lane] = *word;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuMatrix;
    use crate::cpu::ops::testing::random;
    use crate::quant::{self, Dtype};

    #[test]
    fn rows_are_those_of_the_matrix() {
        for format in PackFormat::ALL.into_iter().filter(|format| format.group().is_some()) {
            for (rows, cols) in [(1, 1), (16, 33), (37, 600)] {
                let values = random(rows * cols, 3);
                let bytes = bytemuck::cast_slice(&values);
                let Ok(packed) = quant::pack_rows(Dtype::F32, bytes, rows, cols, format) else {
                    continue;
                };
                let mut tiles =
                    TiledMatrix::new(&mut Arena::default(), "m", format, rows, cols).unwrap();
                // A slice has whole tiles, except the last one.
                let words = (format.data_words(cols), format.scale_words(cols));
                for first in (0..rows).step_by(FEATURES) {
                    let rows = FEATURES.min(rows - first);
                    let data = packed.data[first * words.0..][..rows * words.0].to_vec();
                    let scales = packed.scales[first * words.1..][..rows * words.1].to_vec();
                    tiles.store(first, &PackedRows { format, rows, cols, data, scales });
                }
                let matrix = CpuMatrix::new(packed);
                let (mut found, mut expected) = (vec![0.0; cols], vec![0.0; cols]);
                for row in 0..rows {
                    tiles.dequantize_row(row, &mut found);
                    matrix.dequantize_row(row, &mut expected);
                    assert_eq!(found, expected, "{format}, row {row}");
                }
            }
        }
    }
}
