//! Matrices with one input (q, k and v; gate and up), loaded as rows of one fused matrix.

use std::collections::HashMap;

use crate::error::Result;
use crate::gpu::device::gpu::Gpu;
use crate::gpu::weights::matrix::{GpuMatrix, MatrixMemory, Split};
use crate::model::{matrix_reader::MatrixReader, weights::PlannedTensor};

/// Rows of a larger matrix.
#[derive(Debug, Clone, Copy)]
struct Share {
    first_row: usize,
    all_rows: usize,
}

/// Allocates matrices in the order of the forward pass.
pub(in crate::gpu) struct FusedAllocator {
    shares: HashMap<String, Share>,
    /// The fused matrix that still lacks rows.
    open: Option<GpuMatrix>,
    memory: MatrixMemory,
}

impl FusedAllocator {
    /// Fuses matrices of one format if one binding can hold them.
    pub fn new(gpu: &Gpu, tensors: &[PlannedTensor], memory: MatrixMemory) -> Self {
        let mut shares = HashMap::new();
        let is_joined = |a: &PlannedTensor, b: &PlannedTensor| {
            input(&a.name).is_some() && input(&a.name) == input(&b.name)
        };
        for group in tensors.chunk_by(is_joined).filter(|group| group.len() > 1) {
            let Some(all_rows) = joined_rows(gpu, group) else { continue };
            let mut first_row = 0;
            for tensor in group {
                shares.insert(tensor.name.clone(), Share { first_row, all_rows });
                first_row += tensor.info.shape[0];
            }
        }
        FusedAllocator { shares, open: None, memory }
    }

    /// A matrix for the reader's rows, and the first row in it for them.
    pub fn begin(&mut self, gpu: &Gpu, reader: &MatrixReader<'_>) -> Result<(GpuMatrix, usize)> {
        let share = self.shares.get(reader.name).copied();
        let Share { first_row, all_rows } =
            share.unwrap_or(Share { first_row: 0, all_rows: reader.rows });
        let matrix = match self.open.take().filter(|_| first_row > 0) {
            Some(open) => open,
            None => GpuMatrix::allocate(
                gpu,
                reader.name,
                reader.format,
                (all_rows, reader.cols),
                if all_rows == reader.rows { reader.block_rows } else { all_rows },
                self.memory,
            )?,
        };
        Ok((matrix, first_row))
    }

    /// The matrix if its last rows are written, else a [`GpuMatrix::placeholder`].
    pub fn end(&mut self, matrix: GpuMatrix, rows_so_far: usize) -> GpuMatrix {
        if rows_so_far == matrix.rows {
            if self.memory == MatrixMemory::Mapped {
                matrix.unmap();
            }
            return matrix;
        }
        let placeholder = GpuMatrix::placeholder(&matrix);
        self.open = Some(matrix);
        placeholder
    }
}

/// The input of a matrix that may be fused with others. This is its name without the projection's
/// part.
fn input(name: &str) -> Option<&str> {
    ["q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
}

/// The number of rows of these matrices together; `None` if one matrix cannot hold them in the same
/// layout.
fn joined_rows(gpu: &Gpu, group: &[PlannedTensor]) -> Option<usize> {
    let shape = |tensor: &PlannedTensor| match (tensor.format, tensor.info.shape.as_slice()) {
        (Some(format), &[rows, cols]) => Some((format, rows, cols)),
        _ => None,
    };
    let (format, _, cols) = shape(&group[0])?;
    let mut all_rows = 0;
    let mut interleaved16 = Vec::new();
    for tensor in group {
        let (_, rows, _) =
            shape(tensor).filter(|&(of, _, columns)| (of, columns) == (format, cols))?;
        // In-place writes must begin at a multiple of 8 bytes, which even rows do.
        if all_rows % 2 == 1 {
            return None;
        }
        interleaved16.push(Split::new(gpu, format, rows, cols, rows).interleaved16);
        all_rows += rows;
    }
    let joined = Split::new(gpu, format, all_rows, cols, all_rows);
    (joined.rows_per_part >= all_rows
        && interleaved16.iter().all(|&interleaved16| interleaved16 == joined.interleaved16))
    .then_some(all_rows)
}
