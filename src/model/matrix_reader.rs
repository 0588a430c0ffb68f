//! Matrices of a checkpoint, read and packed a slice of rows at a time.

use std::{borrow::Cow, ops::Range};

use crate::error::{Error, Result};
use crate::model::source::TensorSource;
use crate::quant::{self, Dtype, PackFormat, PackedRows};

/// Source bytes that are packed or sent at once. This bounds the host memory of loading.
const SLICE_BYTES: usize = 32 << 20;
/// The rows of a slice are a multiple of this, except at the end of a part of the matrix.
const SLICE_ROWS: usize = 16;

/// A matrix of the checkpoint, read and packed a slice of rows at a time.
pub struct MatrixReader<'a> {
    pub name: &'a str,
    pub rows: usize,
    pub cols: usize,
    pub format: PackFormat,
    /// Rows of each matrix, if several of one size follow one another.
    pub block_rows: usize,
    /// Whether single rows or blocks are read, never the whole matrix.
    pub is_read_in_parts: bool,
    source: &'a dyn TensorSource,
    dtype: Dtype,
    next_row: usize,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> MatrixReader<'a> {
    /// Reads the matrix `name` of `(rows, cols)` elements stored as `dtype`.
    pub(crate) fn new(
        source: &'a dyn TensorSource,
        name: &'a str,
        dtype: Dtype,
        (rows, cols): (usize, usize),
        format: PackFormat,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        MatrixReader {
            name,
            rows,
            cols,
            format,
            block_rows: rows,
            is_read_in_parts: false,
            source,
            dtype,
            next_row: 0,
            progress,
        }
    }

    /// How the checkpoint stores the matrix.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The next slice of at most `max_rows` rows, with the row it starts at; `None` after the last.
    pub async fn next(&mut self, max_rows: usize) -> Result<Option<(usize, PackedRows)>> {
        let Some((first, bytes)) = self.next_stored(max_rows).await? else { return Ok(None) };
        Ok(Some((first, self.pack(first, &bytes)?)))
    }

    /// Packs the slice that was read last, which begins at row `first`.
    pub(crate) fn pack(&self, first: usize, bytes: &[u8]) -> Result<PackedRows> {
        quant::pack_rows(self.dtype, bytes, self.next_row - first, self.cols, self.format).map_err(
            |reason| Error::tensor(self.name, format!("rows {first}..{}: {reason}", self.next_row)),
        )
    }

    /// As [`MatrixReader::next`], but with the checkpoint's bytes, unchecked.
    pub async fn next_stored(&mut self, max_rows: usize) -> Result<Option<(usize, Cow<'a, [u8]>)>> {
        if self.next_row == self.rows {
            return Ok(None);
        }
        let row_bytes =
            self.dtype.bytes_of(self.cols).map_err(|reason| Error::tensor(self.name, reason))?;
        let rows = slice_rows(row_bytes).min(max_rows).min(self.rows - self.next_row);
        let range: Range<usize> = self.next_row..self.next_row + rows;
        let bytes = self.source.read(self.name, range.clone()).await?;
        (self.progress)(bytes.len() as u64);
        self.next_row = range.end;
        Ok(Some((range.start, bytes)))
    }
}

/// Rows of a slice: whole runs of the rows that a backend may interleave.
fn slice_rows(row_bytes: usize) -> usize {
    (SLICE_BYTES / row_bytes.max(1) / SLICE_ROWS * SLICE_ROWS).max(SLICE_ROWS)
}

/// Bytes of the largest slice of a matrix. `None` if rows are so long that it exceeds the limit of
/// slices.
pub(crate) fn slice_bytes(dtype: Dtype, rows: usize, cols: usize) -> Option<u64> {
    let row_bytes = dtype.bytes_of(cols).ok()?;
    let bytes = row_bytes.checked_mul(slice_rows(row_bytes).min(rows))?;
    (bytes <= SLICE_BYTES).then_some(bytes as u64)
}
