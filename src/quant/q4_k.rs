//! Scales of Q4_K as [`PackFormat::Q4K`](super::PackFormat) holds them. They are the file's bits,
//! in an order that kernels decode in few steps.
//!
//! Four words are the scales of 256 columns. The first has d (low half) and dmin (high half), both
//! f16. In the others nibble g belongs to group g. They hold the lower four bits of its scale,
//! those of its minimum, and the upper two of both. The scale's are the lower ones.

use half::f16;

use crate::quant::PackedRows;

/// Columns that share d and dmin.
pub(super) const COLUMNS: usize = 256;
/// u32 words of their scales.
pub(super) const WORDS: usize = 4;

/// The words, from the 16 bytes with which a block of Q4_K begins.
///
/// Twelve bytes follow d and dmin. Bytes 0..4 hold the scales of groups 0..4 in their lower 6 bits,
/// and bytes 4..8 the minima. Bytes 8..12 hold the lower 4 bits of groups 4..8, with the scale's in
/// the low nibble. The upper 2 bits of groups 4..8 are the top bits of bytes 0..4 (scales) and 4..8
/// (minima).
#[inline]
pub(super) fn words(head: &[u8]) -> [u32; WORDS] {
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    let [scales, minima, both] = [word(4), word(8), word(12)];
    let lower =
        |early: u32, late: u32| nibbles(early & 0x0f0f_0f0f) | nibbles(late & 0x0f0f_0f0f) << 16;
    let upper =
        |shift: u32| scales >> (4 + shift) & 0x0303_0303 | minima >> (2 + shift) & 0x0c0c_0c0c;
    [
        word(0),
        lower(scales, both),
        lower(minima, both >> 4),
        nibbles(upper(0)) | nibbles(upper(2)) << 16,
    ]
}

/// The blocks of Q4_K whose bits the packed rows hold.
///
/// # Panics
/// If the rows do not fill blocks of 256 columns.
pub fn blocks(packed: &PackedRows) -> Vec<u8> {
    assert!(packed.cols.is_multiple_of(COLUMNS), "{} columns", packed.cols);
    let mut out = Vec::with_capacity(4 * (packed.data.len() + packed.scales.len()));
    for (data, scales) in
        packed.data.as_chunks::<{ COLUMNS / 8 }>().0.iter().zip(packed.scales.as_chunks().0)
    {
        out.extend(head(*scales));
        // Two groups of 32: one has the low nibbles there, the other the high ones.
        for [a0, a1, a2, a3, b0, b1, b2, b3] in data.as_chunks().0 {
            for (a, b) in [(a0, b0), (a1, b1), (a2, b2), (a3, b3)] {
                out.extend((a & 0x0f0f_0f0f | b << 4 & 0xf0f0_f0f0).to_le_bytes());
                out.extend((a >> 4 & 0x0f0f_0f0f | b & 0xf0f0_f0f0).to_le_bytes());
            }
        }
    }
    out
}

/// The bytes from which [`words`] made these words.
fn head([steps, scales, minima, upper]: [u32; WORDS]) -> [u8; 16] {
    let [early, late] = [bytes(upper & 0xffff), bytes(upper >> 16)];
    let with_upper = |lower: u32, shift: u32| {
        bytes(lower & 0xffff)
            | (early >> shift & 0x0303_0303) << 4
            | (late >> shift & 0x0303_0303) << 6
    };
    let both = bytes(scales >> 16) | bytes(minima >> 16) << 4;
    bytemuck::cast([steps, with_upper(scales, 0), with_upper(minima, 2), both].map(u32::to_le))
}

/// The low nibbles of four bytes, packed together.
#[inline]
fn nibbles(bytes: u32) -> u32 {
    let pairs = (bytes | bytes >> 4) & 0x00ff_00ff;
    (pairs | pairs >> 8) & 0xffff
}

/// Four nibbles as the low nibbles of bytes.
fn bytes(nibbles: u32) -> u32 {
    let pairs = (nibbles | nibbles << 8) & 0x00ff_00ff;
    (pairs | pairs << 4) & 0x0f0f_0f0f
}

/// Scale and offset of group `group` of 8: `d·scale` and `−dmin·minimum`, which f32 holds exactly.
#[inline]
pub(super) fn steps(words: &[u32; WORDS], group: usize) -> (f32, f32) {
    let [scale, minimum, upper] = [1, 2, 3].map(|at| words[at] >> (4 * group) & 15);
    let half = |bits: u32| f16::from_bits(bits as u16).to_f32();
    let (scale, minimum) = (scale | (upper & 3) << 4, minimum | (upper & 12) << 2);
    (half(words[0]) * scale as f32, -(half(words[0] >> 16) * minimum as f32))
}

/// Whether all scales and offsets are finite and within f16, in which kernels may compute.
#[inline]
pub(super) fn is_finite(words: &[u32; WORDS]) -> bool {
    // From here on the nearest f16 is infinite.
    const END: f32 = 65520.0;
    (0..COLUMNS / 32).all(|group| {
        let (scale, offset) = steps(words, group);
        scale.abs() < END && offset.abs() < END
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_lie_in_the_order_of_groups() {
        // Scales 1, 18, 35, 52, 5, 22, 39, 56 and minima 63 less these.
        let scales: [u8; 8] = std::array::from_fn(|g| (1 + 17 * g as u8) & 63);
        let minima = scales.map(|scale| 63 - scale);
        let mut block = [0x00, 0x3c, 0x00, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for g in 0..4 {
            block[4 + g] = scales[g] | scales[g + 4] >> 4 << 6;
            block[8 + g] = minima[g] | minima[g + 4] >> 4 << 6;
            block[12 + g] = scales[g + 4] & 15 | minima[g + 4] << 4;
        }
        let words = words(&block);
        assert_eq!(words[..2], [0x4000_3c00, 0x8765_4321]);
        for g in 0..8 {
            assert_eq!(steps(&words, g), (scales[g] as f32, -2.0 * minima[g] as f32), "group {g}");
        }
        assert_eq!(head(words), block);
    }

    #[test]
    fn what_f16_does_not_hold_is_not_finite() {
        let of = |d: f16, dmin: f16, scale: u32| {
            [d.to_bits() as u32 | (dmin.to_bits() as u32) << 16, scale, scale, 0]
        };
        assert!(is_finite(&of(f16::MAX, f16::MIN, 1)));
        assert!(
            !is_finite(&of(f16::MAX, f16::ONE, 2))
                && !is_finite(&of(f16::ONE, f16::MIN, 0x2000_0000))
        );
        assert!(
            !is_finite(&of(f16::NAN, f16::ONE, 0))
                && !is_finite(&of(f16::ONE, f16::NEG_INFINITY, 0))
        );
    }
}
