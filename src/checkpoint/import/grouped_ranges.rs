//! Integers of other programs in files that are not mapped. Only the requested rows of a matrix and
//! its tables are read.

use std::{borrow::Cow, ops::Range};

use crate::checkpoint::import::matrix::{FileRange, Imported};
use crate::checkpoint::model_file::ModelFile;
use crate::error::{Error, Result};
use crate::quant::grouped::{Grouped, GroupedBytes, Table, Zeros};
use crate::quant::{PackFormat, PackedRows};

/// Rows whose tables are examined together when a checkpoint is opened.
const ROWS: usize = 4096;
/// A word of packed zero points has eight rows.
const WORD_ROWS: usize = 8;

/// Some rows of a matrix, as a matrix of their own.
struct Part<'a> {
    grouped: Grouped,
    scales: Cow<'a, [u8]>,
    zeros: Cow<'a, [u8]>,
}

impl Part<'_> {
    fn bytes<'b>(&'b self, integers: &'b [u8]) -> GroupedBytes<'b> {
        GroupedBytes { integers, scales: &self.scales, zeros: &self.zeros }
    }
}

/// The format that holds a matrix, as [`Grouped::format`] chooses it.
///
/// Errors: parts that do not fit together (in one line), a failed read.
pub(in super::super) async fn format(
    files: &[ModelFile],
    name: &str,
    imported: &Imported,
) -> Result<PackFormat> {
    let rows = imported.grouped.rows;
    // One row's sizes hold for all rows, because a row's length comes from a division.
    let first = part(files, name, imported, 0..rows.min(WORD_ROWS)).await?;
    let integers = integers(files, name, imported, 0..rows.min(WORD_ROWS)).await?;
    first.grouped.check(first.bytes(&integers)).map_err(|reason| Error::tensor(name, reason))?;
    let mut format = first.grouped.format(first.bytes(&[]));
    for start in (0..rows).step_by(ROWS) {
        if matches!(format, PackFormat::Int { offset: true, .. })
            || imported.grouped.zeros == Zeros::Middle
        {
            break;
        }
        let part = part(files, name, imported, start..rows.min(start + ROWS)).await?;
        format = part.grouped.format(part.bytes(&[]));
    }
    Ok(format)
}

/// Packs some rows as `format`, which [`format`] gave.
///
/// Errors: as [`Grouped::pack`], and a failed read.
pub(in super::super) async fn pack(
    files: &[ModelFile],
    name: &str,
    imported: &Imported,
    rows: Range<usize>,
    format: PackFormat,
) -> Result<PackedRows> {
    // Whole words of packed zero points.
    let first = rows.start / WORD_ROWS * WORD_ROWS;
    let integers = integers(files, name, imported, first..rows.end).await?;
    let part = part(files, name, imported, first..rows.end).await?;
    let packed =
        part.grouped.pack(part.bytes(&integers), rows.start - first..rows.end - first, format);
    packed.map_err(|reason| Error::tensor(name, format!("from row {first} on: {reason}")))
}

/// The tables of some rows. The first row must be the first of a word.
async fn part<'a>(
    files: &'a [ModelFile],
    name: &str,
    imported: &Imported,
    rows: Range<usize>,
) -> Result<Part<'a>> {
    let whole = &imported.grouped;
    let scales = table(files, name, whole, whole.scales, &imported.scales, &rows).await?;
    let zeros = match (whole.zeros, &imported.zeros) {
        (Zeros::Middle, _) | (_, None) => Cow::Borrowed(&[][..]),
        (Zeros::Points(points), Some(place)) => {
            table(files, name, whole, points, place, &rows).await?
        }
        (Zeros::Biases(biases), Some(place)) => {
            table(files, name, whole, biases, place, &rows).await?
        }
        (Zeros::PackedPoints, Some(place)) => {
            let words = rows.start / WORD_ROWS..rows.end.div_ceil(WORD_ROWS);
            rows_of(files, name, place, whole.rows.div_ceil(WORD_ROWS), words).await?
        }
    };
    Ok(Part { grouped: Grouped { rows: rows.len(), ..*whole }, scales, zeros })
}

async fn integers<'a>(
    files: &'a [ModelFile],
    name: &str,
    imported: &Imported,
    rows: Range<usize>,
) -> Result<Cow<'a, [u8]>> {
    rows_of(files, name, &imported.integers, imported.grouped.rows, rows).await
}

/// A table's values for some rows. Of `[groups, rows]` these are columns.
async fn table<'a>(
    files: &'a [ModelFile],
    name: &str,
    whole: &Grouped,
    Table { number, transposed }: Table,
    place: &FileRange,
    rows: &Range<usize>,
) -> Result<Cow<'a, [u8]>> {
    if !transposed {
        return rows_of(files, name, place, whole.rows, rows.clone()).await;
    }
    let all = rows_of(files, name, place, whole.groups(), 0..whole.groups()).await?;
    let width = number.bytes();
    let of_group = all.chunks_exact(whole.rows * width);
    Ok(Cow::Owned(
        of_group.flat_map(|group| &group[rows.start * width..rows.end * width]).copied().collect(),
    ))
}

/// Some rows of a tensor with `count` rows of equal length.
async fn rows_of<'a>(
    files: &'a [ModelFile],
    name: &str,
    (file, range): &FileRange,
    count: usize,
    rows: Range<usize>,
) -> Result<Cow<'a, [u8]>> {
    let (bytes, count) = (range.end - range.start, count as u64);
    if count == 0 || !bytes.is_multiple_of(count) {
        return Err(Error::tensor(name, format!("{bytes} bytes of {count} equal rows")));
    }
    let row_bytes = bytes / count;
    let wanted =
        range.start + rows.start as u64 * row_bytes..range.start + rows.end as u64 * row_bytes;
    match files.get(*file) {
        Some(file) if wanted.end <= range.end && wanted.end <= file.len() => {
            file.read(wanted, false).await
        }
        _ => Err(Error::tensor(name, "reaches past the end of its file")),
    }
}
