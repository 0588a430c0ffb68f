//! Weight matrices in memory, packed as on a GPU.

use crate::cpu::try_with_capacity;
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

/// Collects weights in memory and counts their bytes.
#[derive(Default)]
pub(super) struct CpuStore {
    pub bytes: u64,
}

impl WeightStore for CpuStore {
    type Matrix = CpuMatrix;
    /// `[len]`
    type Vector = Vec<f32>;

    async fn matrix(&mut self, mut reader: MatrixReader<'_>) -> Result<CpuMatrix> {
        let (rows, cols, format) = (reader.rows, reader.cols, reader.format);
        // A length that overflows exceeds any memory, so that saturating gives the right error.
        let mut data =
            try_with_capacity(reader.name, rows.saturating_mul(format.data_words(cols)))?;
        let mut scales =
            try_with_capacity(reader.name, rows.saturating_mul(format.scale_words(cols)))?;
        while let Some((_, slice)) = reader.next(rows).await? {
            data.extend_from_slice(&slice.data);
            scales.extend_from_slice(&slice.scales);
        }
        let matrix = CpuMatrix::new(PackedRows { format, rows, cols, data, scales });
        self.bytes += matrix.bytes();
        Ok(matrix)
    }

    fn vector(&mut self, _name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
        self.bytes += 4 * values.len() as u64;
        Ok(values)
    }
}
