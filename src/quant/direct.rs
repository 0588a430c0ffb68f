//! Moves the integers of block types to words, a word at a time and without decoding single
//! weights.

use crate::quant::{Dtype, q4_k};

/// Moves a row to the words of its [`native_format`](super::native_format), all of which it writes.
/// Returns false for other types, and where a scale or offset is not finite or beyond f16. The
/// caller then packs the row step by step, and can name the faulty value.
pub(super) fn move_row(dtype: Dtype, bytes: &[u8], data: &mut [u32], scales: &mut [u32]) -> bool {
    match dtype {
        Dtype::Q4_0 | Dtype::IQ4_NL => {
            move_halves::<18, 4>(bytes, data, scales, |bytes, words| *words = nibble_words(bytes))
        }
        Dtype::Q8_0 => move_halves::<34, 8>(bytes, data, scales, byte_words),
        Dtype::Q4_1 => move_q4_1(bytes, data, scales),
        Dtype::Q4_K => move_q4_k(bytes, data, scales),
        _ => false,
    }
}

/// Words of 32 nibbles: weight i is the low nibble of byte i, weight i + 16 the high one.
#[inline]
fn nibble_words(bytes: &[u8]) -> [u32; 4] {
    const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let word = |bytes: u64| bytes as u32 | (bytes >> 28) as u32;
    let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let (first, second) = (half(0), half(8));
    [word(first & LOW), word(second & LOW), word(first >> 4 & LOW), word(second >> 4 & LOW)]
}

#[inline]
fn byte_words(bytes: &[u8], words: &mut [u32; 8]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
}

fn is_finite(bits: u32) -> bool {
    bits & 0x7c00 != 0x7c00
}

/// Blocks of an f16 scale and 32 weights, whose scales share words.
#[inline]
fn move_halves<const BYTES: usize, const WORDS: usize>(
    bytes: &[u8],
    data: &mut [u32],
    scales: &mut [u32],
    weights: impl Fn(&[u8], &mut [u32; WORDS]),
) -> bool {
    let mut finite = true;
    let blocks = bytes.as_chunks::<BYTES>().0;
    let words = data.as_chunks_mut::<WORDS>().0;
    for ((blocks, words), step) in blocks.chunks(2).zip(words.chunks_mut(2)).zip(scales) {
        *step = 0;
        for ((block, words), shift) in blocks.iter().zip(words).zip([0, 16]) {
            let bits = u16::from_le_bytes([block[0], block[1]]) as u32;
            finite &= is_finite(bits);
            *step |= bits << shift;
            weights(&block[2..], words);
        }
    }
    finite
}

fn move_q4_1(bytes: &[u8], data: &mut [u32], scales: &mut [u32]) -> bool {
    let mut finite = true;
    let blocks = bytes.as_chunks::<20>().0;
    for ((block, words), step) in blocks.iter().zip(data.as_chunks_mut::<4>().0).zip(scales) {
        let bits = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        finite &= is_finite(bits) && is_finite(bits >> 16);
        *step = bits;
        *words = nibble_words(&block[4..]);
    }
    finite
}

fn move_q4_k(bytes: &[u8], data: &mut [u32], scales: &mut [u32]) -> bool {
    let mut finite = true;
    let blocks = bytes.as_chunks::<144>().0;
    let steps = scales.as_chunks_mut::<{ q4_k::WORDS }>().0;
    for ((bytes, words), steps) in blocks.iter().zip(data.as_chunks_mut::<32>().0).zip(steps) {
        *steps = q4_k::words(&bytes[..16]);
        finite &= q4_k::is_finite(steps);
        // Bytes 0..32 have one group in their low nibbles and the next group in their high nibbles.
        for (words, bytes) in
            words.as_chunks_mut::<8>().0.iter_mut().zip(bytes[16..].as_chunks::<32>().0)
        {
            let [first, second] = [nibble_words(&bytes[..16]), nibble_words(&bytes[16..])];
            *words = [
                first[0], first[1], second[0], second[1], first[2], first[3], second[2], second[3],
            ];
        }
    }
    finite
}
