//! The loop that brings a matrix from a checkpoint to the device, one slice of rows at a time.

use crate::error::{Error, Result};
use crate::model::matrix_reader::MatrixReader;

/// Rows of a matrix as the checkpoint stores them, and their destination.
pub(super) struct Slice<'s, 'r, P> {
    pub reader: &'s MatrixReader<'r>,
    pub bytes: &'s [u8],
    /// The first row within the reader's matrix.
    pub row: usize,
    pub rows: usize,
    /// The destination, and the first row in it.
    pub part: P,
    pub part_row: usize,
}

/// Reads all rows of a reader and gives them to `sink`. A range is a destination, its first row and
/// the number of rows.
///
/// Errors: a failed read; errors of `sink`.
pub(super) async fn for_each_slice<'r, P: Copy>(
    reader: &mut MatrixReader<'r>,
    ranges: impl IntoIterator<Item = (P, usize, usize)>,
    mut sink: impl AsyncFnMut(Slice<'_, 'r, P>) -> Result<()>,
) -> Result<()> {
    let row_bytes = reader.dtype().bytes_of(reader.cols);
    let row_bytes = row_bytes.map_err(|reason| Error::tensor(reader.name, reason))?.max(1);
    for (part, first, count) in ranges {
        let mut done = 0;
        while done < count {
            let Some((row, bytes)) = reader.next_stored(count - done).await? else { break };
            let rows = bytes.len() / row_bytes;
            let part_row = first + done;
            sink(Slice { reader, bytes: &bytes, row, rows, part, part_row }).await?;
            done += rows;
        }
    }
    Ok(())
}
