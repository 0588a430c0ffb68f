//! Packing rows of a checkpoint into a [`PackFormat`].

use half::f16;
use rayon::prelude::*;

use crate::quant::gguf_blocks::{Block, native_format};
use crate::quant::round::{self, MAX_GROUP};
use crate::quant::unpack::{high_bits, load_floats};
use crate::quant::{
    COLUMN_ALIGN, Dtype, GROUPS, PackFormat, PackedRows, direct, padded_cols, q4_k,
};

/// Source bytes that make a task worth a thread.
const TASK_BYTES: usize = 64 << 10;

/// Packs `rows` rows of `cols` columns, stored as `dtype`, into `format`. Every type packs into its
/// [`native_format`]. Plain floats also pack into integers of 4 or 8 bits in groups of 16, 32, 64
/// or 128. The functions of `round` do that.
///
/// Padded columns hold weight 0. In formats with an offset they hold the value nearest to 0 in a
/// group's range. Inputs must be padded with zeros there.
///
/// Errors: `bytes` of the wrong length; a dtype that `format` cannot hold. Also a value that is NaN
/// or infinite, and a scale that is NaN, infinite or beyond f16. Rows in the message count from the
/// first of `bytes`.
pub fn pack_rows(
    dtype: Dtype,
    bytes: &[u8],
    rows: usize,
    cols: usize,
    format: PackFormat,
) -> Result<PackedRows, String> {
    if !can_hold(format, dtype) {
        return Err(format!("{dtype:?} cannot be packed as {format}"));
    }
    let row_bytes = dtype.bytes_of(cols)?;
    if row_bytes.checked_mul(rows) != Some(bytes.len()) {
        let given = bytes.len();
        return Err(format!(
            "{given} bytes for {rows} rows of {cols} columns ({dtype:?}, {row_bytes} bytes each)"
        ));
    }
    let mut packed = PackedRows { format, rows, cols, data: Vec::new(), scales: Vec::new() };
    if bytes.is_empty() {
        return Ok(packed);
    }
    let (data_words, scale_words) = (format.data_words(cols), format.scale_words(cols));
    packed.data = vec![0; rows * data_words];
    packed.scales = vec![0; rows * scale_words];
    if let Dtype::Packed(_) = dtype {
        split_rows(
            bytes,
            row_bytes,
            (data_words, scale_words),
            &mut packed.data,
            &mut packed.scales,
        );
        let fault = check_scales(format, &packed.scales, scale_words);
        return fault
            .map_err(|(row, reason)| format!("row {row} of {rows}: {reason}"))
            .map(|()| packed);
    }
    let rows_per_task = TASK_BYTES.div_ceil(row_bytes);
    let data = packed.data.par_chunks_exact_mut(data_words);
    let source = data.zip(bytes.par_chunks_exact(row_bytes)).with_min_len(rows_per_task);
    let pack = |row: usize, data: &mut [u32], bytes: &[u8], scales: &mut [u32]| {
        pack_row(dtype, bytes, cols, format, data, scales).err().map(|reason| (row, reason))
    };
    let fault = match scale_words {
        0 => source
            .enumerate()
            .find_map_first(|(row, (data, bytes))| pack(row, data, bytes, &mut [])),
        _ => {
            let rows = source.zip(packed.scales.par_chunks_exact_mut(scale_words)).enumerate();
            rows.find_map_first(|(row, ((data, bytes), scales))| pack(row, data, bytes, scales))
        }
    };
    match fault {
        Some((row, reason)) => Err(format!("row {row} of {rows}, {reason}")),
        None => Ok(packed),
    }
}

/// As [`pack_rows`], on this thread alone and into words that may hold anything. To learn the row
/// of an error, the caller packs again.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn pack_into(
    dtype: Dtype,
    bytes: &[u8],
    cols: usize,
    format: PackFormat,
    data: &mut [u32],
    scales: &mut [u32],
) -> Result<(), String> {
    if !can_hold(format, dtype) {
        return Err(format!("{dtype:?} cannot be packed as {format}"));
    }
    let row_bytes = dtype.bytes_of(cols)?;
    let words @ (data_words, scale_words) = (format.data_words(cols), format.scale_words(cols));
    if bytes.is_empty() {
        return Ok(());
    }
    if let Dtype::Packed(_) = dtype {
        split_rows(bytes, row_bytes, words, data, scales);
        return check_scales(format, scales, scale_words).map_err(|(_, reason)| reason.into());
    }
    for (row, (bytes, data)) in
        bytes.chunks_exact(row_bytes).zip(data.chunks_exact_mut(data_words)).enumerate()
    {
        pack_row(
            dtype,
            bytes,
            cols,
            format,
            data,
            &mut scales[row * scale_words..][..scale_words],
        )?;
    }
    Ok(())
}

/// Packs a row of floats or blocks. The words may hold anything before.
fn pack_row(
    dtype: Dtype,
    bytes: &[u8],
    cols: usize,
    format: PackFormat,
    data: &mut [u32],
    scales: &mut [u32],
) -> Result<(), String> {
    if direct::move_row(dtype, bytes, data, scales) {
        return Ok(());
    }
    if dtype == Dtype::Q4_K {
        // A faulty scale kept the row from being moved. This names it.
        return for_block_groups(dtype, bytes, 32, |_, _, _| ());
    }
    data.fill(0);
    scales.fill(0);
    let Some(layout) = format.layout() else { return copy_row(dtype, bytes, data) };
    let mut out = RowWriter::new(layout, cols, data, scales);
    match dtype.is_float() {
        true => quantize_row(dtype, bytes, &mut out),
        false => repack_row(dtype, bytes, &mut out),
    }
}

/// Whether [`pack_rows`] packs `dtype` as `format`.
fn can_hold(format: PackFormat, dtype: Dtype) -> bool {
    match format {
        PackFormat::Int { bits: 4 | 8, group, .. }
            if dtype.is_float() && GROUPS.contains(&group) =>
        {
            true
        }
        _ => format == native_format(dtype),
    }
}

/// Copies rows that are already packed.
fn split_rows(
    bytes: &[u8],
    row_bytes: usize,
    (data_words, scale_words): (usize, usize),
    data: &mut [u32],
    scales: &mut [u32],
) {
    for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
        let (from_data, from_scales) = bytes.split_at(4 * data_words);
        bytemuck::cast_slice_mut(&mut data[row * data_words..][..data_words])
            .copy_from_slice(from_data);
        bytemuck::cast_slice_mut(&mut scales[row * scale_words..][..scale_words])
            .copy_from_slice(from_scales);
    }
}

/// Errors if a stored scale or offset is NaN or infinite (of `Q4K`, or beyond f16), with its row.
fn check_scales(
    format: PackFormat,
    scales: &[u32],
    scale_words: usize,
) -> Result<(), (usize, &'static str)> {
    let finite = |word: &u32| {
        [*word as u16, (*word >> 16) as u16].iter().all(|&bits| f16::from_bits(bits).is_finite())
    };
    let fault = match format {
        PackFormat::Q4K => scales
            .as_chunks()
            .0
            .iter()
            .position(|words| !q4_k::is_finite(words))
            .map(|at| at * q4_k::WORDS),
        _ => scales.iter().position(|word| !finite(word)),
    };
    match fault {
        Some(at) => Err((at / scale_words.max(1), "a scale or offset is not finite")),
        None => Ok(()),
    }
}

/// Copies floats and checks them.
fn copy_row(dtype: Dtype, bytes: &[u8], data: &mut [u32]) -> Result<(), String> {
    for_float_groups(dtype, bytes, MAX_GROUP, |_, _| Ok(()))?;
    // Two halves are in a word in the file's order. An odd last one gets a zero beside it.
    let (words, rest) = bytes.as_chunks();
    for (word, bytes) in data.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    if let ([low, high], Some(word)) = (rest, data.get_mut(words.len())) {
        *word = u32::from_le_bytes([*low, *high, 0, 0]);
    }
    Ok(())
}

/// Rounds floats to integers, and pads them.
fn quantize_row(dtype: Dtype, bytes: &[u8], out: &mut RowWriter<'_>) -> Result<(), String> {
    let (bits, group, offset) = (out.bits, out.group, out.offset);
    let mut q = [0; MAX_GROUP];
    for_float_groups(dtype, bytes, group, |values, real| {
        let q = &mut q[..values.len()];
        let rounded = match (bits, offset) {
            (bits, true) => round::affine(values, real, bits, q)?,
            (4, false) => round::symmetric_int4(values, q)?,
            _ => round::symmetric_int8(values, q)?,
        };
        out.push(q, rounded.scale, rounded.offset);
        Ok(())
    })
}

/// Calls `visit` with each group of a row as f32 and its number of real values. Zeros fill up the
/// last group. Groups of padding alone stay as allocated, with scale 0. Errors if a value is not
/// finite, or with `visit`'s reason.
fn for_float_groups(
    dtype: Dtype,
    bytes: &[u8],
    group: usize,
    mut visit: impl FnMut(&[f32], usize) -> Result<(), String>,
) -> Result<(), String> {
    let size = dtype.block_bytes();
    let cols = bytes.len() / size;
    let mut buffer = [0.0; MAX_GROUP];
    for start in (0..cols).step_by(group) {
        let end = (start + group).min(cols);
        let real = end - start;
        let values = &mut buffer[..real.next_multiple_of(group.min(COLUMN_ALIGN))];
        load_floats(dtype, &bytes[start * size..end * size], &mut values[..real]);
        values[real..].fill(0.0);
        if let Some(at) = round::first_non_finite(values) {
            return Err(format!("column {} is {}", start + at, values[at]));
        }
        visit(values, real).map_err(|reason| format!("columns from {start}: {reason}"))?;
    }
    Ok(())
}

/// Moves the integers of blocks.
fn repack_row(dtype: Dtype, bytes: &[u8], out: &mut RowWriter<'_>) -> Result<(), String> {
    for_block_groups(dtype, bytes, out.group, |q, scale, offset| out.push(q, scale, offset))
}

/// Calls `visit` with the integers in stored form, scale and offset of each group of a row of
/// blocks. Errors if a scale or offset is not finite or beyond f16.
fn for_block_groups(
    dtype: Dtype,
    bytes: &[u8],
    columns: usize,
    mut visit: impl FnMut(&[u8], f16, f16),
) -> Result<(), String> {
    let mut block = Block::default();
    let groups = dtype.block_len() / columns;
    for (index, bytes) in bytes.chunks_exact(dtype.block_bytes()).enumerate() {
        block.decode(dtype, bytes);
        for (group, q) in block.q.chunks_exact(columns).take(groups).enumerate() {
            let name =
                |reason| format!("columns from {}: {reason}", (index * groups + group) * columns);
            let scale = round::finite_f16("scale", block.scales[group]).map_err(name)?;
            let offset = round::finite_f16("offset", block.offsets[group]).map_err(name)?;
            visit(q, scale, offset);
        }
    }
    Ok(())
}

/// Writes a row's groups one after another, in the layout of [`PackFormat`].
pub(super) struct RowWriter<'a> {
    pub bits: u8,
    pub group: usize,
    pub offset: bool,
    /// Of 5 or 6 bits, the low four.
    data: &'a mut [u32],
    /// The bits above them.
    high: &'a mut [u32],
    scales: &'a mut [u32],
    /// Groups written so far.
    groups: usize,
}

impl<'a> RowWriter<'a> {
    /// For a row of `cols` columns in `(bits, group, offset)`. `data` and `scales` start as zeros.
    pub fn new(
        (bits, group, offset): (u8, usize, bool),
        cols: usize,
        data: &'a mut [u32],
        scales: &'a mut [u32],
    ) -> Self {
        let low = if matches!(bits, 5 | 6) { padded_cols(cols) / 8 } else { data.len() };
        let (data, high) = data.split_at_mut(low);
        RowWriter { bits, group, offset, data, high, scales, groups: 0 }
    }

    /// Appends a group of integers in stored form. A row's last group may be shorter.
    #[inline]
    pub fn push(&mut self, q: &[u8], scale: f16, offset: f16) {
        let start = self.groups * self.group;
        if self.bits == 8 {
            let data = &mut self.data[start / 4..][..q.len() / 4];
            for (word, q) in data.iter_mut().zip(q.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*q);
            }
        } else {
            let data = &mut self.data[start / 8..][..q.len() / 8];
            for (word, q) in data.iter_mut().zip(q.as_chunks::<8>().0) {
                // Weights 0..4 are the low half of the eight bytes, 4..8 the high half.
                let bytes = u64::from_le_bytes(*q) & 0x0f0f_0f0f_0f0f_0f0f;
                *word = bytes as u32 | (bytes >> 32 << 4) as u32;
            }
            self.push_high(q);
        }
        let scale = scale.to_bits() as u32;
        match self.offset {
            true => self.scales[self.groups] = scale | (offset.to_bits() as u32) << 16,
            false => self.scales[self.groups / 2] |= scale << (16 * (self.groups % 2)),
        }
        self.groups += 1;
    }

    /// The bits above the fourth.
    #[inline]
    fn push_high(&mut self, q: &[u8]) {
        let Some((bits, quads)) = high_bits(self.bits) else { return };
        let mask = 0x0101_0101 * ((1 << bits) - 1);
        for (quad, q) in (self.groups * self.group / 4..).zip(q.as_chunks::<4>().0) {
            self.high[quad / quads] |=
                (u32::from_le_bytes(*q) >> 4 & mask) << (bits * (quad % quads));
        }
    }
}
