//! Weight matrices in memory, packed as on a GPU.

use crate::cpu::arena::Arena;
use crate::cpu::tiles::TiledMatrix;
use crate::cpu::try_with_capacity;
use crate::cpu::weight_rows::WeightRows;
use crate::error::Result;
use crate::model::{matrix_reader::MatrixReader, weights::WeightStore};
use crate::quant::PackedRows;

/// A weight matrix `[out_features, in_features]`, packed. A row is dequantized on use.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuMatrix {
    packed: PackedRows,
}

impl CpuMatrix {
    /// A matrix of all of `packed`'s rows.
    pub fn new(packed: PackedRows) -> Self {
        CpuMatrix { packed }
    }

    pub fn out_features(&self) -> usize {
        self.packed.rows
    }

    pub fn in_features(&self) -> usize {
        self.packed.cols
    }

    pub fn packed(&self) -> &PackedRows {
        &self.packed
    }

    /// Bytes of weights and scales.
    pub fn bytes(&self) -> u64 {
        4 * (self.packed.data.len() + self.packed.scales.len()) as u64
    }

    /// Row `row` as f32 into `out`, shape `[in_features]`.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        self.packed.dequantize_row(row, out);
    }
}

impl WeightRows for CpuMatrix {
    fn out_features(&self) -> usize {
        self.packed.rows
    }

    fn in_features(&self) -> usize {
        self.packed.cols
    }

    fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        self.packed.dequantize_row(row, out);
    }
}

/// A matrix as a path reads it.
pub(super) enum StoredMatrix {
    /// Of the reference, of floats, and where single rows are read.
    Rows(CpuMatrix),
    /// Of integers on the fast path.
    Tiles(TiledMatrix),
}

impl StoredMatrix {
    /// Bytes of weights and scales.
    pub fn bytes(&self) -> u64 {
        match self {
            StoredMatrix::Rows(rows) => rows.bytes(),
            StoredMatrix::Tiles(tiles) => tiles.bytes(),
        }
    }
}

impl WeightRows for StoredMatrix {
    fn out_features(&self) -> usize {
        match self {
            StoredMatrix::Rows(rows) => rows.out_features(),
            StoredMatrix::Tiles(tiles) => tiles.out_features(),
        }
    }

    fn in_features(&self) -> usize {
        match self {
            StoredMatrix::Rows(rows) => rows.in_features(),
            StoredMatrix::Tiles(tiles) => tiles.in_features(),
        }
    }

    fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        match self {
            StoredMatrix::Rows(rows) => rows.dequantize_row(row, out),
            StoredMatrix::Tiles(tiles) => tiles.dequantize_row(row, out),
        }
    }
}

/// Collects weights in memory and counts their bytes.
pub(super) struct CpuStore {
    /// Whether integers are laid out in tiles.
    tiled: bool,
    arena: Arena,
    pub bytes: u64,
}

impl CpuStore {
    pub fn new(tiled: bool) -> Self {
        CpuStore { tiled, arena: Arena::default(), bytes: 0 }
    }
}

impl WeightStore for CpuStore {
    type Matrix = StoredMatrix;
    /// `[len]`
    type Vector = Vec<f32>;

    async fn matrix(&mut self, mut reader: MatrixReader<'_>) -> Result<StoredMatrix> {
        let (rows, cols, format) = (reader.rows, reader.cols, reader.format);
        let matrix = if self.tiled && format.group().is_some() && !reader.is_read_in_parts {
            let mut tiles = TiledMatrix::new(&mut self.arena, reader.name, format, rows, cols)?;
            while let Some((first, slice)) = reader.next(rows).await? {
                tiles.store(first, &slice);
            }
            StoredMatrix::Tiles(tiles)
        } else {
            // A length that overflows exceeds any memory, so that saturating gives the right error.
            let words = |of_row: usize| rows.saturating_mul(of_row);
            let mut data = try_with_capacity(reader.name, words(format.data_words(cols)))?;
            let mut scales = try_with_capacity(reader.name, words(format.scale_words(cols)))?;
            while let Some((_, slice)) = reader.next(rows).await? {
                data.extend_from_slice(&slice.data);
                scales.extend_from_slice(&slice.scales);
            }
            StoredMatrix::Rows(CpuMatrix::new(PackedRows { format, rows, cols, data, scales }))
        };
        self.bytes += matrix.bytes();
        Ok(matrix)
    }

    fn vector(&mut self, _name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
        self.bytes += 4 * values.len() as u64;
        Ok(values)
    }
}
