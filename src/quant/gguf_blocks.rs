//! GGUF's block formats: how their bytes become small integers with scales.
//!
//! The layouts are those of ggml's `ggml-common.h`. Every decoder writes its integers as the
//! block's [`native_format`] stores them, so that packing moves them without requantizing.

use half::f16;

use crate::quant::{Dtype, PackFormat, q4_k};

/// Weights of the longest block.
const MAX_BLOCK: usize = 256;
/// Smallest group that shares a scale (Q6_K).
const MIN_GROUP: usize = 16;

/// The format that holds every value of a stored type without requantizing.
///
/// The K types and IQ4_XS multiply an f16 by a small integer for each group's scale (and offset).
/// Packing rounds these products to the nearest f16, except for Q4_K. Rounding changes a scale by
/// at most one part in 2048.
pub fn native_format(dtype: Dtype) -> PackFormat {
    match dtype {
        Dtype::F32 => PackFormat::F32,
        Dtype::F16 => PackFormat::F16,
        Dtype::BF16 => PackFormat::BF16,
        Dtype::Q4_0 => PackFormat::INT4,
        Dtype::Q4_1 => PackFormat::Int { bits: 4, group: 32, offset: true },
        Dtype::Q4_K => PackFormat::Q4K,
        Dtype::Q8_0 => PackFormat::INT8,
        Dtype::IQ4_NL | Dtype::IQ4_XS => PackFormat::Iq4,
        Dtype::Q5_0 => PackFormat::Int { bits: 5, group: 32, offset: false },
        Dtype::Q5_1 | Dtype::Q5_K => PackFormat::Int { bits: 5, group: 32, offset: true },
        Dtype::Q6_K => PackFormat::Int { bits: 6, group: 16, offset: false },
        Dtype::Packed(format) => format,
    }
}

/// A decoded block. Weight i is `scale·(q − zero_point) + offset` with the scale and offset of
/// group `i / group`. Lengths, zero point and the existence of an offset follow from the type's
/// [`native_format`].
pub(super) struct Block {
    /// Stored form: negative integers are in two's complement of 8 bits.
    pub q: [u8; MAX_BLOCK],
    pub scales: [f32; MAX_BLOCK / MIN_GROUP],
    pub offsets: [f32; MAX_BLOCK / MIN_GROUP],
}

impl Default for Block {
    fn default() -> Self {
        Block {
            q: [0; MAX_BLOCK],
            scales: [0.0; MAX_BLOCK / MIN_GROUP],
            offsets: [0.0; MAX_BLOCK / MIN_GROUP],
        }
    }
}

impl Block {
    /// Decodes the `dtype.block_bytes()` bytes of one block. Plain types and packed rows have no
    /// blocks, so they change nothing.
    #[inline]
    pub fn decode(&mut self, dtype: Dtype, bytes: &[u8]) {
        match dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Packed(_) => {}
            Dtype::Q4_0 => self.q4_0(bytes),
            Dtype::Q4_1 => self.q4_1(bytes),
            Dtype::Q5_0 => self.q5_0(bytes),
            Dtype::Q5_1 => self.q5_1(bytes),
            Dtype::Q8_0 => self.q8_0(bytes),
            Dtype::Q4_K => self.q4_k(bytes),
            Dtype::Q5_K => self.q5_k(bytes),
            Dtype::Q6_K => self.q6_k(bytes),
            Dtype::IQ4_NL => self.iq4_nl(bytes),
            Dtype::IQ4_XS => self.iq4_xs(bytes),
        }
    }

    /// d f16, 32 nibbles.
    fn q4_0(&mut self, bytes: &[u8]) {
        self.scales[0] = f16_at(bytes, 0);
        nibbles(&bytes[2..18], &mut self.q[..32]);
    }

    /// d f16, m f16, 32 nibbles.
    fn q4_1(&mut self, bytes: &[u8]) {
        self.scales[0] = f16_at(bytes, 0);
        self.offsets[0] = f16_at(bytes, 2);
        nibbles(&bytes[4..20], &mut self.q[..32]);
    }

    /// d f16, 32 fifth bits, 32 nibbles. Stored with 16 added.
    fn q5_0(&mut self, bytes: &[u8]) {
        self.scales[0] = f16_at(bytes, 0);
        nibbles(&bytes[6..22], &mut self.q[..32]);
        fifth_bits(&bytes[2..6], &mut self.q[..32]);
        self.q[..32].iter_mut().for_each(|q| *q = q.wrapping_sub(16));
    }

    /// d f16, m f16, 32 fifth bits, 32 nibbles.
    fn q5_1(&mut self, bytes: &[u8]) {
        self.scales[0] = f16_at(bytes, 0);
        self.offsets[0] = f16_at(bytes, 2);
        nibbles(&bytes[8..24], &mut self.q[..32]);
        fifth_bits(&bytes[4..8], &mut self.q[..32]);
    }

    /// d f16, 32 signed bytes.
    fn q8_0(&mut self, bytes: &[u8]) {
        self.scales[0] = f16_at(bytes, 0);
        self.q[..32].copy_from_slice(&bytes[2..34]);
    }

    /// d f16, dmin f16, 8 scales and 8 minima of 6 bits, 256 nibbles.
    fn q4_k(&mut self, bytes: &[u8]) {
        self.k_scales(bytes);
        for (q, nibble_bytes) in self.q.chunks_exact_mut(64).zip(bytes[16..144].chunks_exact(32)) {
            nibbles(nibble_bytes, q);
        }
    }

    /// As Q4_K, with 256 fifth bits before the nibbles: bit g of byte i belongs to weight 32g + i.
    fn q5_k(&mut self, bytes: &[u8]) {
        self.k_scales(bytes);
        for (q, nibble_bytes) in self.q.chunks_exact_mut(64).zip(bytes[48..176].chunks_exact(32)) {
            nibbles(nibble_bytes, q);
        }
        for (group, q) in self.q.chunks_exact_mut(32).enumerate() {
            for (q, &byte) in q.iter_mut().zip(&bytes[16..48]) {
                *q |= (byte >> group & 1) << 4;
            }
        }
    }

    /// 256 low nibbles, 256 upper pairs of bits, 16 signed scales, d f16. Stored with 32 added.
    fn q6_k(&mut self, bytes: &[u8]) {
        let d = f16_at(bytes, 208);
        for (scale, &byte) in self.scales.iter_mut().zip(&bytes[192..208]) {
            *scale = d * (byte as i8) as f32;
        }
        let halves = bytes[..128].chunks_exact(64).zip(bytes[128..192].chunks_exact(32));
        for (q, (low, high)) in self.q.chunks_exact_mut(128).zip(halves) {
            nibbles(low, q);
            for (pair, q) in q.chunks_exact_mut(32).enumerate() {
                for (q, &byte) in q.iter_mut().zip(high) {
                    *q = (*q | (byte >> (2 * pair) & 3) << 4).wrapping_sub(32);
                }
            }
        }
    }

    /// d f16, 32 nibbles that choose among [`IQ4_LEVELS`].
    fn iq4_nl(&mut self, bytes: &[u8]) {
        self.scales[0] = f16_at(bytes, 0);
        nibbles(&bytes[2..18], &mut self.q[..32]);
    }

    /// d f16, the upper 2 bits of 8 scales (u16), their lower 4 bits, 256 nibbles as in IQ4_NL.
    /// Scales are stored with 32 added.
    fn iq4_xs(&mut self, bytes: &[u8]) {
        let (d, high) = (f16_at(bytes, 0), u16::from_le_bytes([bytes[2], bytes[3]]));
        for (group, q) in self.q.chunks_exact_mut(32).enumerate() {
            let low = bytes[4 + group / 2] >> (4 * (group % 2)) & 15;
            let scale = low as i32 | ((high >> (2 * group) & 3) << 4) as i32;
            self.scales[group] = d * (scale - 32) as f32;
            nibbles(&bytes[8 + 16 * group..][..16], q);
        }
    }

    /// Scales and offsets of the 8 groups of a Q4_K or Q5_K block.
    fn k_scales(&mut self, bytes: &[u8]) {
        let words = q4_k::words(&bytes[..16]);
        for (group, (scale, offset)) in
            self.scales.iter_mut().zip(&mut self.offsets).take(8).enumerate()
        {
            (*scale, *offset) = q4_k::steps(&words, group);
        }
    }
}

/// The uneven steps of IQ4 types, denser around 0 (ggml's `kvalues_iq4nl`).
pub const IQ4_LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The low nibbles of `bytes`, then the high ones.
#[inline]
fn nibbles(bytes: &[u8], q: &mut [u8]) {
    let (low, high) = q.split_at_mut(bytes.len());
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// Adds bit i of `bits` to weight i as its fifth bit.
#[inline]
fn fifth_bits(bits: &[u8], q: &mut [u8]) {
    for (q, &bits) in q.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
        // Byte i keeps bit i. Adding 127 then moves that bit to the top of its byte.
        let spread = (bits as u64 * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let fifth = ((spread + 0x7f7f_7f7f_7f7f_7f7f) & 0x8080_8080_8080_8080) >> 3;
        *q = (u64::from_le_bytes(*q) | fifth).to_le_bytes();
    }
}

#[inline]
fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
