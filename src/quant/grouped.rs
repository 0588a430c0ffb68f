//! Packs integer matrices whose scales are in separate tensors, as other programs store them.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::quant::pack::RowWriter;
use crate::quant::round::{self, MAX_GROUP};
use crate::quant::{PackFormat, PackedRows, group_for};

/// How the integers of a matrix are stored, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integers {
    /// 0..=15, two in a byte, the low nibble first.
    Nibbles,
    /// 0..=255.
    Bytes,
    /// −128..=127; −8..=7 if they are `narrow`.
    SignedBytes { narrow: bool },
}

/// Element type of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    F32,
    F16,
    BF16,
    I8,
}

/// A number for each row and group: `[rows, groups]`, or `[groups, rows]` if it is `transposed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub number: Number,
    pub transposed: bool,
}

/// The integer that stands for weight 0, or the bias of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeros {
    /// The middle of their range: a weight is `scale·(q − middle)`.
    Middle,
    /// A weight is `scale·(q − zero)`.
    Points(Table),
    /// The same. The zeros of rows 8w..8w+7 are nibbles of word w in `[rows / 8, groups]`, the
    /// lowest nibble first.
    PackedPoints,
    /// A weight is `scale·q + bias`.
    Biases(Table),
}

/// A matrix of grouped integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grouped {
    pub rows: usize,
    pub cols: usize,
    /// Columns that share a scale.
    pub group: usize,
    pub integers: Integers,
    pub scales: Table,
    pub zeros: Zeros,
}

/// The bytes of a whole matrix.
#[derive(Debug, Clone, Copy)]
pub struct GroupedBytes<'a> {
    pub integers: &'a [u8],
    pub scales: &'a [u8],
    /// Empty for [`Zeros::Middle`].
    pub zeros: &'a [u8],
}

impl Number {
    pub fn bytes(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::F16 | Number::BF16 => 2,
            Number::I8 => 1,
        }
    }

    /// Element `index`, which must exist.
    fn read(self, bytes: &[u8], index: usize) -> f32 {
        let at = index * self.bytes();
        match self {
            Number::F32 => {
                f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            }
            Number::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
            Number::BF16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
            Number::I8 => bytes[at] as i8 as f32,
        }
    }
}

impl Grouped {
    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.cols.div_ceil(self.group.max(1))
    }

    /// Bytes of a row's integers.
    fn row_bytes(&self) -> usize {
        if self.integers == Integers::Nibbles { self.cols / 2 } else { self.cols }
    }

    /// Errors: groups do not divide the rows; no packed format can hold them; the bytes do not fit
    /// the shape.
    pub fn check(&self, bytes: GroupedBytes<'_>) -> Result<(), String> {
        let Grouped { rows, cols, group, .. } = *self;
        if rows == 0 || cols == 0 || group == 0 || (!cols.is_multiple_of(group) && group < cols) {
            return Err(format!("groups of {group} do not divide its {cols} columns"));
        }
        if !group.is_multiple_of(16) && group < cols {
            return Err(format!("groups of {group} columns: only multiples of 16 are supported"));
        }
        if self.integers == Integers::Nibbles && !cols.is_multiple_of(2) {
            return Err(format!("{cols} columns do not fill bytes of two"));
        }
        let table =
            |table: Table| self.groups().checked_mul(rows)?.checked_mul(table.number.bytes());
        let zeros = match self.zeros {
            Zeros::Middle => Some(0),
            Zeros::Points(points) => table(points),
            Zeros::PackedPoints => self.groups().checked_mul(4 * rows.div_ceil(8)),
            Zeros::Biases(biases) => table(biases),
        };
        let wanted = [self.row_bytes().checked_mul(rows), table(self.scales), zeros];
        let found = [bytes.integers.len(), bytes.scales.len(), bytes.zeros.len()].map(Some);
        match wanted
            .iter()
            .zip(found)
            .zip(["integers", "scales", "zeros"])
            .find(|((wanted, found), _)| **wanted != *found)
        {
            None => Ok(()),
            Some(((wanted, found), name)) => Err(format!(
                "{} bytes of {name} where {rows} rows of {cols} columns in groups of {group} \
                 have {}",
                found.unwrap_or(0),
                wanted.unwrap_or(usize::MAX)
            )),
        }
    }

    /// The format that holds the matrix with its integers unchanged. It has no offset if all groups
    /// count from the middle. A group size without a format becomes the widest one that divides it,
    /// with repeated scales. `bytes` must have passed [`Grouped::check`].
    pub fn format(&self, bytes: GroupedBytes<'_>) -> PackFormat {
        let bits = match self.integers {
            Integers::Nibbles | Integers::SignedBytes { narrow: true } => 4,
            Integers::Bytes | Integers::SignedBytes { narrow: false } => 8,
        };
        let group = match self.group.min(self.cols) {
            columns if columns.is_multiple_of(32) => group_for(columns),
            // A row's only group, which padding fills up.
            _ if self.group >= self.cols => 32,
            _ => 16,
        };
        let symmetric = self.zeros == Zeros::Middle
            || (0..self.rows).into_par_iter().all(|row| {
                (0..self.groups()).all(|g| {
                    let (scale, offset) = self.step(bytes, row, g);
                    offset + self.middle() * scale == 0.0
                })
            });
        PackFormat::Int { bits, group, offset: !symmetric }
    }

    /// The middle of the integers' range.
    fn middle(&self) -> f32 {
        match self.integers {
            Integers::Nibbles => 8.0,
            Integers::Bytes => 128.0,
            Integers::SignedBytes { .. } => 0.0,
        }
    }

    /// Scale and offset of a group: a weight is `scale·q + offset`.
    fn step(&self, bytes: GroupedBytes<'_>, row: usize, group: usize) -> (f32, f32) {
        let read = |table: Table, bytes: &[u8]| {
            let index = if table.transposed {
                group * self.rows + row
            } else {
                row * self.groups() + group
            };
            table.number.read(bytes, index)
        };
        let scale = read(self.scales, bytes.scales);
        let offset = match self.zeros {
            Zeros::Middle => -self.middle() * scale,
            Zeros::Points(points) => -read(points, bytes.zeros) * scale,
            Zeros::PackedPoints => {
                let byte = bytes.zeros[4 * (row / 8 * self.groups() + group) + row % 8 / 2];
                -((byte >> (4 * (row % 2)) & 15) as f32) * scale
            }
            Zeros::Biases(biases) => read(biases, bytes.zeros),
        };
        (scale, offset)
    }

    /// Packs some rows as `format`, which [`Grouped::format`] gave. Scales and offsets are rounded
    /// to f16.
    ///
    /// Errors: a scale or offset that is not finite, or beyond f16; an integer beyond a narrow
    /// range.
    pub fn pack(
        &self,
        bytes: GroupedBytes<'_>,
        rows: Range<usize>,
        format: PackFormat,
    ) -> Result<PackedRows, String> {
        let PackFormat::Int { bits, group, offset } = format else {
            return Err(format!("integers cannot be packed as {format}"));
        };
        let (data_words, scale_words) =
            (format.data_words(self.cols), format.scale_words(self.cols));
        let count = rows.len();
        let mut packed = PackedRows {
            format,
            rows: count,
            cols: self.cols,
            data: vec![0; count * data_words],
            scales: vec![0; count * scale_words],
        };
        let data = packed.data.par_chunks_exact_mut(data_words.max(1));
        let scales = packed.scales.par_chunks_exact_mut(scale_words.max(1));
        let fault = data.zip(scales).enumerate().find_map_first(|(index, (data, scales))| {
            let row = rows.start + index;
            let mut out = RowWriter::new((bits, group as usize, offset), self.cols, data, scales);
            self.pack_row(bytes, row, &mut out).err().map(|reason| format!("row {row}, {reason}"))
        });
        fault.map_or(Ok(packed), Err)
    }

    fn pack_row(
        &self,
        bytes: GroupedBytes<'_>,
        row: usize,
        out: &mut RowWriter<'_>,
    ) -> Result<(), String> {
        let integers = &bytes.integers[row * self.row_bytes()..][..self.row_bytes()];
        let (bits, width) = (out.bits, out.group);
        // The shift from an unsigned integer and its offset to the format's own integers.
        let shift: u8 = match (self.integers, bits) {
            (Integers::Bytes, _) => 128,
            (Integers::SignedBytes { .. }, 4) => 8,
            _ => 0,
        };
        let moved = match self.integers {
            Integers::Bytes => 128.0,
            Integers::SignedBytes { narrow: true } => -8.0,
            _ => 0.0,
        };
        for start in (0..self.cols).step_by(width) {
            let real = width.min(self.cols - start);
            let mut q = [0u8; MAX_GROUP];
            match self.integers {
                Integers::Nibbles => {
                    let pairs = &integers[start / 2..(start + real) / 2];
                    for (pair, byte) in q.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                        *pair = [byte & 15, byte >> 4];
                    }
                }
                _ => {
                    for (q, byte) in q.iter_mut().zip(&integers[start..start + real]) {
                        *q = byte.wrapping_add(shift);
                    }
                }
            }
            if bits == 4 && q[..real].iter().any(|q| *q > 15) {
                return Err(format!("columns from {start}: an integer beyond 4 bits"));
            }
            if !out.offset {
                // Padding must be weight 0.
                q[real..width].fill(if bits == 4 { 8 } else { 0 });
            }
            let name = |reason| format!("columns from {start}: {reason}");
            let (scale, offset) = self.step(bytes, row, start / self.group);
            let offset = if out.offset { offset + moved * scale } else { 0.0 };
            let scale = round::finite_f16("scale", scale).map_err(name)?;
            out.push(&q[..width], scale, round::finite_f16("offset", offset).map_err(name)?);
        }
        Ok(())
    }
}
