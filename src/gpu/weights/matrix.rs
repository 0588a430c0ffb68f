//! Weight matrices on the device, split by rows if one binding cannot hold them.

use rayon::prelude::*;

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu};
use crate::gpu::kernels::{Linear, TILE_ROWS};
use crate::quant::PackFormat;

/// Consecutive rows of a matrix in one pair of buffers.
pub struct MatrixPart {
    pub first_row: usize,
    pub rows: usize,
    /// See [`PackFormat`].
    pub data: GpuBuffer,
    /// A few unused bytes for float formats.
    pub scales: GpuBuffer,
}

impl MatrixPart {
    /// Its buffers by the names of their bindings.
    pub(in crate::gpu) fn bindings(&self) -> [(&'static str, &GpuBuffer); 2] {
        [("data", &self.data), ("scales", &self.scales)]
    }
}

/// A packed weight matrix `[rows, cols]`.
pub struct GpuMatrix {
    pub format: PackFormat,
    pub rows: usize,
    pub cols: usize,
    /// Whether runs of [`TILE_ROWS`] rows are interleaved, see `weight_layout.wgsl`. This is faster
    /// on cooperative matrices of 16 × 16.
    pub interleaved16: bool,
    /// Empty if a later matrix holds the rows: see `fused.rs`.
    pub parts: Vec<MatrixPart>,
}

/// The kind of memory for a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) enum MatrixMemory {
    Device,
    /// Mapped memory, for in-place writes.
    Mapped,
    /// A few bytes, if only the matrix's shape matters.
    #[cfg(not(target_arch = "wasm32"))]
    ShapeOnly,
}

/// The split of a matrix's rows into parts, and its layout.
pub(in crate::gpu) struct Split {
    pub rows_per_part: usize,
    pub interleaved16: bool,
}

impl Split {
    /// A split in which every part fits one binding. Blocks of `block_rows` stay together.
    pub fn new(gpu: &Gpu, format: PackFormat, rows: usize, cols: usize, block_rows: usize) -> Self {
        let facts = gpu.facts();
        let limit = facts.max_binding_bytes.min(facts.max_buffer_bytes);
        let data_bytes = 4 * format.data_words(cols) as u64;
        let most_rows = ((limit / data_bytes.max(1)) as usize).clamp(1, rows.max(1));
        let rows_per_part = rows_per_part(most_rows, rows, block_rows);
        let in_nibbles = format.layout().is_some_and(|(bits, ..)| bits == 4);
        let interleaved16 = gpu.tuning().interleave_weights
            && in_nibbles
            && Linear::supports_q8(format)
            && rows.is_multiple_of(TILE_ROWS)
            && rows_per_part.is_multiple_of(TILE_ROWS);
        Split { rows_per_part, interleaved16 }
    }
}

/// Rows of parts of equal sizes, each of at most `most_rows`. Parts end at blocks of `block_rows`,
/// or at a workgroup's rows if there is only one block.
fn rows_per_part(most_rows: usize, rows: usize, block_rows: usize) -> usize {
    let even = rows.div_ceil(rows.div_ceil(most_rows));
    match block_rows < rows {
        true => {
            let even = even.next_multiple_of(block_rows);
            if even <= most_rows { even } else { (most_rows / block_rows).max(1) * block_rows }
        }
        false => even.next_multiple_of(64).min(most_rows),
    }
}

impl GpuMatrix {
    /// A matrix whose rows are not written yet.
    pub(in crate::gpu) fn allocate(
        gpu: &Gpu,
        name: &str,
        format: PackFormat,
        (rows, cols): (usize, usize),
        block_rows: usize,
        memory: MatrixMemory,
    ) -> Result<Self> {
        let Split { rows_per_part, interleaved16 } =
            Split::new(gpu, format, rows, cols, block_rows);
        let buffer = |words: usize, rows: usize| {
            let bytes = 4 * words as u64 * rows as u64;
            match memory {
                MatrixMemory::Device => gpu.buffer(name, bytes),
                MatrixMemory::Mapped => gpu.mapped_buffer(name, bytes),
                #[cfg(not(target_arch = "wasm32"))]
                MatrixMemory::ShapeOnly => gpu.buffer(name, 16),
            }
        };
        let mut matrix = GpuMatrix { format, rows, cols, interleaved16, parts: Vec::new() };
        for first_row in (0..rows).step_by(rows_per_part) {
            let rows = rows_per_part.min(rows - first_row);
            matrix.parts.push(MatrixPart {
                first_row,
                rows,
                data: buffer(format.data_words(cols), rows)?,
                scales: buffer(format.scale_words(cols), rows)?,
            });
        }
        Ok(matrix)
    }

    /// Bytes of weights and scales.
    pub(in crate::gpu) fn bytes(&self) -> u64 {
        (self.rows * self.format.row_bytes(self.cols)) as u64
    }

    /// A matrix without rows of its own. Its rows are in a fused matrix that still lacks rows.
    pub(in crate::gpu) fn placeholder(joined: &GpuMatrix) -> Self {
        GpuMatrix { rows: 0, parts: Vec::new(), ..*joined }
    }

    /// Ends in-place writes.
    pub(in crate::gpu) fn unmap(&self) {
        for part in &self.parts {
            part.data.unmap();
            part.scales.unmap();
        }
    }

    /// The parts that hold `rows` rows from `first` on. Each has the first row in the part, and the
    /// number of rows.
    pub(in crate::gpu) fn row_ranges(
        &self,
        first: usize,
        rows: usize,
    ) -> impl Iterator<Item = (&MatrixPart, usize, usize)> {
        self.parts.iter().filter_map(move |part| {
            let begin = first.max(part.first_row);
            let end = (first + rows).min(part.first_row + part.rows);
            (begin < end).then(|| (part, begin - part.first_row, end - begin))
        })
    }
}

/// Interleaves rows of `row_words` words in runs of [`TILE_ROWS`], in the order of
/// `weight_layout.wgsl`. Units of `unit` words alternate, each of 4 words or 1. There must be whole
/// runs of rows, and whole units in a row.
pub fn tile(rows: &[u32], row_words: usize, unit: usize) -> Vec<u32> {
    debug_assert!(
        rows.len().is_multiple_of(TILE_ROWS * row_words)
            && row_words.is_multiple_of(unit)
            && [1, 4].contains(&unit)
    );
    match unit {
        4 => tile_units::<4>(rows, row_words),
        _ => tile_units::<1>(rows, row_words),
    }
}

fn tile_units<const UNIT: usize>(rows: &[u32], row_words: usize) -> Vec<u32> {
    let mut interleaved16 = vec![0; rows.len()];
    let run_words = TILE_ROWS * row_words;
    interleaved16.par_chunks_exact_mut(run_words).zip(rows.par_chunks_exact(run_words)).for_each(
        |(interleaved16, run)| {
            let interleaved16 = interleaved16.as_chunks_mut::<UNIT>().0;
            for (row, words) in run.chunks_exact(row_words).enumerate() {
                for (from, to) in words
                    .as_chunks::<UNIT>()
                    .0
                    .iter()
                    .zip(interleaved16[row..].iter_mut().step_by(TILE_ROWS))
                {
                    *to = *from;
                }
            }
        },
    );
    interleaved16
}

#[cfg(test)]
mod tests {
    use super::rows_per_part;

    #[test]
    fn parts_end_between_experts() {
        assert_eq!(rows_per_part(1000, 1000, 1000), 1000);
        assert_eq!(rows_per_part(1000, 1500, 1500), 768);
        assert_eq!(rows_per_part(1000, 1010, 1010), 512);
        // Experts of 30 rows: parts of 17 experts at most, then equal ones.
        assert_eq!(rows_per_part(512, 30 * 20, 30), 300);
        assert_eq!(rows_per_part(512, 30 * 17, 30), 510);
        assert_eq!(rows_per_part(299, 30 * 10, 30), 150);
        assert_eq!(rows_per_part(250, 30 * 16, 30), 240);
    }
}
