//! Rows of packed weights as bytes and f32 steps, in plain loops that compilers vectorize.
//!
//! The functions are inlined into one function an instruction set, which then has its own copy.
//! They pass no closures to the standard library, whose functions lack these instructions.

use crate::quant::{IQ4_LEVELS, PackFormat};

/// Columns whose products share one pair of scales: those of a group of activations.
pub const GROUP: usize = 32;
/// Steps of a row are padded with zeros to a multiple of this number.
pub const STEP_ALIGN: usize = 16;

/// A row of packed integer weights.
#[derive(Debug, Clone, Copy)]
pub struct PackedRow<'a> {
    pub format: PackFormat,
    pub data: &'a [u32],
    pub scales: &'a [u32],
}

/// The weights of a row: weight i is `scales[i / unit]·q[i] + offsets[i / unit]`.
#[derive(Debug, Clone, Default)]
pub struct UnpackedRow {
    /// Columns that share a step: 16 for formats with groups of 16, else [`GROUP`].
    pub unit: usize,
    /// Groups of [`GROUP`] columns.
    groups: usize,
    /// Bytes q, padded to a multiple of 64. Rows of 8 bits may leave them empty.
    pub bytes: Vec<u8>,
    /// Padded as [`STEP_ALIGN`] says.
    pub scales: Vec<f32>,
    /// Padded in the same way.
    pub offsets: Vec<f32>,
}

impl UnpackedRow {
    /// Room for rows of this many groups of [`GROUP`] columns, in any format.
    pub fn new(groups: usize) -> Self {
        let steps = (2 * groups).next_multiple_of(STEP_ALIGN);
        UnpackedRow {
            unit: GROUP,
            groups,
            bytes: vec![0; (groups * GROUP).next_multiple_of(64)],
            scales: vec![0.0; steps],
            offsets: vec![0.0; steps],
        }
    }
}

/// Columns that share a step after unpacking: 16 for groups of 16, else 32.
fn unit(format: PackFormat) -> usize {
    if format.group() == Some(16) { 16 } else { GROUP }
}

/// Whether a format's integers have the full range of a byte.
fn is_wide(format: PackFormat) -> bool {
    matches!(format, PackFormat::Int { bits: 8, .. } | PackFormat::Iq4)
}

/// The byte that stands for weight 0. Wide integers are xored with `flip`.
fn zero_point(format: PackFormat, flip: u8) -> u8 {
    match format {
        PackFormat::Int { bits: bits @ (4..=6), offset: false, .. } => 1 << (bits - 1),
        _ if is_wide(format) => flip,
        _ => 0,
    }
}

/// Unpacks a row for `visit(row, bytes, flip)`. Bytes of wide formats must still be xored with that
/// `flip`, or have been xored with the `flip` given here.
#[inline(always)]
pub fn row(
    weights: PackedRow<'_>,
    flip: u8,
    scratch: &mut UnpackedRow,
    visit: impl FnOnce(&UnpackedRow, &[u8], u8),
) {
    // Whole runs of 64 bytes, as every instruction set loads them.
    let in_place = cfg!(target_endian = "little")
        && matches!(weights.format, PackFormat::Int { bits: 8, .. })
        && weights.data.len().is_multiple_of(16);
    if in_place {
        steps(weights, flip, scratch);
        visit(scratch, bytemuck::cast_slice(weights.data), flip);
    } else {
        unpack(weights, flip, scratch);
        visit(scratch, &scratch.bytes, 0);
    }
}

/// Unpacks integers and steps of a row.
#[inline(always)]
pub fn unpack(weights: PackedRow<'_>, flip: u8, scratch: &mut UnpackedRow) {
    steps(weights, flip, scratch);
    integers(weights, flip, &mut scratch.bytes[..scratch.groups * GROUP]);
}

/// Unpacks the integers of a row. `out` has a multiple of 32 bytes.
#[inline(always)]
fn integers(row: PackedRow<'_>, flip: u8, out: &mut [u8]) {
    let low_words = out.len() / 8;
    match row.format {
        PackFormat::Int { bits: 8, .. } => bytes(row.data, flip, out),
        PackFormat::Int { bits: 5, offset, .. } => {
            let (low, high) = row.data.split_at(low_words);
            five_bits(low, high, if offset { 0 } else { 0x1010_1010 }, out);
        }
        PackFormat::Int { bits: 6, offset, .. } => {
            let (low, high) = row.data.split_at(low_words);
            six_bits(low, high, if offset { 0 } else { 0x2020_2020 }, out);
        }
        PackFormat::Iq4 => {
            nibbles(row.data, out);
            for q in out {
                *q = IQ4_LEVELS[(*q & 15) as usize] as u8 ^ flip;
            }
        }
        _ => nibbles(row.data, out),
    }
}

#[inline(always)]
fn bytes(data: &[u32], flip: u8, out: &mut [u8]) {
    let flip = u32::from_ne_bytes([flip; 4]);
    for (out, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(data) {
        *out = (word ^ flip).to_le_bytes();
    }
}

#[inline(always)]
fn nibbles(data: &[u32], out: &mut [u8]) {
    for (out, &word) in out.as_chunks_mut::<8>().0.iter_mut().zip(data) {
        let (low, high) = (word & 0x0f0f_0f0f, word >> 4 & 0x0f0f_0f0f);
        *out = (low as u64 | (high as u64) << 32).to_le_bytes();
    }
}

/// Adds the fifth bits. Bit k of byte b of a word belongs to weight 4k + b of 32.
#[inline(always)]
fn five_bits(low: &[u32], high: &[u32], flip: u32, out: &mut [u8]) {
    let words = low.as_chunks::<4>().0.iter().zip(high);
    for (out, (low, &high)) in out.as_chunks_mut::<32>().0.iter_mut().zip(words) {
        let mut quads = [0u32; 8];
        for (k, quad) in quads.iter_mut().enumerate() {
            let nibbles = low[k / 2] >> (4 * (k % 2)) & 0x0f0f_0f0f;
            *quad = (nibbles | (high >> k & 0x0101_0101) << 4) ^ flip;
        }
        *out = quad_bytes(quads);
    }
}

/// Adds the upper two bits. Bits 2k and 2k+1 of byte b of a word belong to weight 4k + b of 16.
#[inline(always)]
fn six_bits(low: &[u32], high: &[u32], flip: u32, out: &mut [u8]) {
    let words = low.as_chunks::<4>().0.iter().zip(high.as_chunks::<2>().0);
    for (out, (low, high)) in out.as_chunks_mut::<32>().0.iter_mut().zip(words) {
        let mut quads = [0u32; 8];
        for (k, quad) in quads.iter_mut().enumerate() {
            let nibbles = low[k / 2] >> (4 * (k % 2)) & 0x0f0f_0f0f;
            *quad = (nibbles | (high[k / 4] >> (2 * (k % 4)) & 0x0303_0303) << 4) ^ flip;
        }
        *out = quad_bytes(quads);
    }
}

#[inline(always)]
fn quad_bytes(quads: [u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bytes, quad) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(quads) {
        *bytes = quad.to_le_bytes();
    }
    bytes
}

/// Scales and offsets of a row, one for each unit of columns. The zero point goes to the offsets.
#[inline(always)]
fn steps(row: PackedRow<'_>, flip: u8, out: &mut UnpackedRow) {
    out.unit = unit(row.format);
    let (scales, offsets) = (&mut out.scales, &mut out.offsets);
    let zero = -(zero_point(row.format, flip) as f32);
    match row.format {
        PackFormat::Q4K => {
            for ((words, scales), offsets) in (row.scales.as_chunks::<4>().0.iter())
                .zip(scales.as_chunks_mut::<8>().0)
                .zip(offsets.as_chunks_mut::<8>().0)
            {
                (*scales, *offsets) = q4_k_steps(words);
            }
        }
        PackFormat::Int { offset: true, .. } => {
            for ((&word, scale), offset) in
                row.scales.iter().zip(scales.iter_mut()).zip(offsets.iter_mut())
            {
                *scale = half(word);
                *offset = half(word >> 16) + zero * *scale;
            }
        }
        _ => {
            let pairs = scales.as_chunks_mut::<2>().0.iter_mut();
            for ((&word, scales), offsets) in
                row.scales.iter().zip(pairs).zip(offsets.as_chunks_mut::<2>().0)
            {
                *scales = [half(word), half(word >> 16)];
                *offsets = [zero * scales[0], zero * scales[1]];
            }
        }
    }
    let repeats = row.format.group().unwrap_or(GROUP) / GROUP;
    if repeats > 1 {
        for unit in (0..scales.len()).rev() {
            (scales[unit], offsets[unit]) = (scales[unit / repeats], offsets[unit / repeats]);
        }
    }
}

/// Scales and offsets of eight groups, whose layout [`PackFormat`] describes.
#[inline(always)]
fn q4_k_steps(words: &[u32; 4]) -> ([f32; 8], [f32; 8]) {
    let (d, dmin) = (half(words[0]), half(words[0] >> 16));
    let (mut scales, mut offsets) = ([0.0; 8], [0.0; 8]);
    for g in 0..8 {
        let shift = 4 * g;
        let (scale, minimum, upper) = (words[1] >> shift, words[2] >> shift, words[3] >> shift);
        scales[g] = d * ((scale & 15 | (upper & 3) << 4) as i32) as f32;
        offsets[g] = -(dmin * ((minimum & 15 | (upper & 12) << 2) as i32) as f32);
    }
    (scales, offsets)
}

/// A finite f16 as f32, without a processor's instruction for it.
#[inline(always)]
fn half(bits: u32) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits(0x7780_0000);
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * TWO_TO_112;
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}
