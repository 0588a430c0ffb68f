//! Reading stored and packed weights as f32.

use half::{f16, slice::HalfFloatSliceExt};

use crate::quant::gguf_blocks::{Block, IQ4_LEVELS, native_format};
use crate::quant::round::{self, MAX_GROUP};
use crate::quant::{Dtype, PackFormat, PackedRows, padded_cols, q4_k};

/// All elements as f32.
///
/// Errors: `bytes` is not whole blocks; a value (or a block's scale) is NaN or infinite; packed
/// rows. These bytes do not give the length of packed rows, so use [`PackedRows`] for them.
pub fn dequantize(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>, String> {
    if let Dtype::Packed(format) = dtype {
        return Err(format!("{format} holds matrices, not vectors"));
    }
    let (block_len, block_bytes) = (dtype.block_len(), dtype.block_bytes());
    if !bytes.len().is_multiple_of(block_bytes) {
        return Err(format!(
            "{} bytes are not whole {dtype:?} blocks of {block_bytes} bytes",
            bytes.len()
        ));
    }
    let mut values = vec![0.0; bytes.len() / block_bytes * block_len];
    match native_format(dtype) {
        format @ (PackFormat::Int { .. } | PackFormat::Iq4 | PackFormat::Q4K) => {
            let group = format.group().unwrap_or(1);
            let mut block = Block::default();
            for (bytes, values) in
                bytes.chunks_exact(block_bytes).zip(values.chunks_exact_mut(block_len))
            {
                block.decode(dtype, bytes);
                let groups = values.chunks_exact_mut(group).zip(block.q.chunks_exact(group));
                for ((values, q), (&scale, &offset)) in
                    groups.zip(block.scales.iter().zip(&block.offsets))
                {
                    weights(format, q, scale, offset, values);
                }
            }
        }
        _ => load_floats(dtype, bytes, &mut values),
    }
    match round::first_non_finite(&values) {
        Some(at) => Err(format!("value {at} is {}", values[at])),
        None => Ok(values),
    }
}

/// Little-endian floats of a plain type as f32. `bytes` and `values` hold the same number of them.
#[inline]
pub(super) fn load_floats(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F16 => {
            // A slice at once, because half looks for the CPU instruction at every call.
            for (values, bytes) in values.chunks_mut(MAX_GROUP).zip(bytes.chunks(2 * MAX_GROUP)) {
                let mut halves = [f16::ZERO; MAX_GROUP];
                for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                    *half = f16::from_le_bytes(*bytes);
                }
                halves[..values.len()].convert_to_f32_slice(values);
            }
        }
        Dtype::BF16 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_bits((u16::from_le_bytes(*bytes) as u32) << 16);
            }
        }
        _ => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
    }
}

/// The weights of a group, from its integers in stored form.
#[inline]
fn weights(format: PackFormat, q: &[u8], scale: f32, offset: f32, values: &mut [f32]) {
    match format {
        PackFormat::Int { offset: true, .. } | PackFormat::Q4K => {
            for (value, &q) in values.iter_mut().zip(q) {
                *value = scale * (q as i8) as f32 + offset;
            }
        }
        PackFormat::Iq4 => {
            for (value, &q) in values.iter_mut().zip(q) {
                *value = scale * IQ4_LEVELS[(q & 15) as usize] as f32;
            }
        }
        _ => {
            let zero_point = format.zero_point() as f32;
            for (value, &q) in values.iter_mut().zip(q) {
                *value = scale * ((q as i8) as f32 - zero_point);
            }
        }
    }
}

impl PackedRows {
    /// Row `row` as f32, shape `[cols]`: what the kernels compute from the packed words.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `cols` long.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.rows && out.len() == self.cols,
            "row {row} of {}, {} columns",
            self.rows,
            out.len()
        );
        let data_words = self.format.data_words(self.cols);
        let data = &self.data[row * data_words..][..data_words];
        match self.format {
            PackFormat::F32 => packed_floats(Dtype::F32, data, out),
            PackFormat::F16 => packed_floats(Dtype::F16, data, out),
            PackFormat::BF16 => packed_floats(Dtype::BF16, data, out),
            PackFormat::Int { .. } | PackFormat::Iq4 | PackFormat::Q4K => {
                let mut groups = out.chunks_mut(self.format.group().unwrap_or(1));
                self.for_each_group(row, |_, q, scale, offset| {
                    // The row may end before its last group of padding.
                    let values = groups.next().unwrap_or_default();
                    for (value, &q) in values.iter_mut().zip(q) {
                        *value = scale * q as f32 + offset;
                    }
                });
            }
        }
    }

    /// Calls `visit(g, q, scale, offset)` for every group g of row `row`, padding included. The
    /// last group may be shorter. Weight i of the group is `scale·q[i] + offset`.
    ///
    /// # Panics
    /// If the format has no integers, or there is no such row.
    pub fn for_each_group(&self, row: usize, mut visit: impl FnMut(usize, &[i8], f32, f32)) {
        let Some((bits, group, offset)) = self.format.layout() else {
            panic!("{} has no groups", self.format);
        };
        let (data_words, scale_words) =
            (self.format.data_words(self.cols), self.format.scale_words(self.cols));
        let data = &self.data[row * data_words..][..data_words];
        let scales = &self.scales[row * scale_words..][..scale_words];
        let zero_point = self.format.zero_point();
        let (mut stored, mut q) = ([0; MAX_GROUP], [0; MAX_GROUP]);
        let low_bits = if bits == 8 { 8 } else { 4 };
        let (data, high) = data.split_at(padded_cols(self.cols) * low_bits / 32);
        for (g, words) in data.chunks(group * low_bits / 32).enumerate() {
            let (stored, q) =
                (&mut stored[..words.len() * 32 / low_bits], &mut q[..words.len() * 32 / low_bits]);
            load_integers(low_bits, words, stored);
            load_high_bits((bits, offset), high, g * group / 4, stored);
            let pairs = q.iter_mut().zip(stored);
            match self.format {
                PackFormat::Iq4 => {
                    pairs.for_each(|(q, stored)| *q = IQ4_LEVELS[(*stored & 15) as usize])
                }
                _ => pairs.for_each(|(q, stored)| *q = (*stored as i8).wrapping_sub(zero_point)),
            }
            let half = |bits: u32| f16::from_bits(bits as u16).to_f32();
            let (scale, offset) = match self.format {
                PackFormat::Q4K => q4_k::steps(&scales.as_chunks().0[g / 8], g % 8),
                _ if offset => (half(scales[g]), half(scales[g] >> 16)),
                // Adding −0 leaves every product as it is, even a negative zero.
                _ => (half(scales[g / 2] >> (16 * (g % 2))), -0.0),
            };
            visit(g, q, scale, offset);
        }
    }
}

/// Floats from words in a file's order, the low half first.
fn packed_floats(dtype: Dtype, data: &[u32], out: &mut [f32]) {
    let size = dtype.block_bytes();
    for (values, words) in out.chunks_mut(MAX_GROUP).zip(data.chunks(MAX_GROUP * size / 4)) {
        let mut bytes = [0; 4 * MAX_GROUP];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        load_floats(dtype, &bytes[..values.len() * size], values);
    }
}

/// The integers of a group from its words, in stored form. See [`PackFormat`].
#[inline]
fn load_integers(bits: usize, words: &[u32], q: &mut [u8]) {
    if bits == 4 {
        for (q, &word) in q.as_chunks_mut().0.iter_mut().zip(words) {
            let (low, high) = (word & 0x0f0f_0f0f, word >> 4 & 0x0f0f_0f0f);
            *q = (low as u64 | (high as u64) << 32).to_le_bytes();
        }
    } else {
        for (q, &word) in q.as_chunks_mut().0.iter_mut().zip(words) {
            *q = word.to_le_bytes();
        }
    }
}

/// Adds the bits above the fourth to 5- and 6-bit integers, from quad `first` of weights on.
/// Extends their sign unless they have an offset.
#[inline]
fn load_high_bits((bits, offset): (u8, bool), high: &[u32], first: usize, q: &mut [u8]) {
    let Some((high_bits, quads)) = high_bits(bits) else { return };
    let mask = 0x0101_0101 * ((1 << high_bits) - 1);
    for (quad, q) in (first..).zip(q.as_chunks_mut::<4>().0) {
        let above = (high[quad / quads] >> (high_bits * (quad % quads)) & mask) << 4;
        *q = (u32::from_le_bytes(*q) | above).to_le_bytes();
    }
    if !offset {
        // Flips the sign bit and subtracts its value, which extends the sign. Processors have no
        // shift of bytes that could do it.
        let sign = 1u8 << (bits - 1);
        q.iter_mut().for_each(|q| *q = (*q ^ sign).wrapping_sub(sign));
    }
}

/// For integers of 5 or 6 bits: the bits above the fourth, and the quads of weights in each word.
pub(super) fn high_bits(bits: u8) -> Option<(usize, usize)> {
    match bits {
        5 | 6 => Some((bits as usize - 4, 8 / (bits as usize - 4))),
        _ => None,
    }
}
