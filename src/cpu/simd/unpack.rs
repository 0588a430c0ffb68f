//! Packed tiles as bytes and f32 steps.
//!
//! The functions are inlined into one function an instruction set, which then has its own copy.

use crate::cpu::simd::activations::GROUP;
use crate::cpu::simd::tile::{Lanes, PackedTile, Tile, TileScratch};
use crate::cpu::simd::words::Words;
use crate::quant::PackFormat;

/// Unpacks rows of `groups` groups of [`GROUP`] columns. `levels` replaces each byte by its level
/// in [`PackFormat::Iq4`].
#[inline(always)]
pub fn unpack<'a, W: Words>(
    weights: PackedTile<'a>,
    groups: usize,
    scratch: &'a mut TileScratch,
    levels: impl Fn(&mut [Lanes<u32>]),
) -> Tile<'a> {
    let TileScratch { quads, scales, offsets } = scratch;
    let (format, data) = (weights.format, weights.data);
    let unit = if format.group() == Some(16) { 16 } else { GROUP };
    let units = groups * GROUP / unit;
    let (quads, scales, offsets) =
        (&mut quads[..groups * GROUP / 4], &mut scales[..units], &mut offsets[..units]);
    let has_offsets = steps::<W>(weights, scales, offsets);
    let (low, high) = data.split_at((groups * GROUP / 8).min(data.len()));
    let (bits, zero) = match format {
        PackFormat::Int { bits: 8, .. } => (8, 0),
        PackFormat::Int { bits: 5, offset, .. } => {
            five_bits::<W>(low, high, if offset { 0 } else { 0x1010_1010 }, quads);
            (5, if offset { 0 } else { 16 })
        }
        PackFormat::Int { bits: 6, offset, .. } => {
            six_bits::<W>(low, high, if offset { 0 } else { 0x2020_2020 }, quads);
            (6, if offset { 0 } else { 32 })
        }
        PackFormat::Iq4 => {
            nibbles::<W>(low, quads);
            levels(quads);
            (8, 0)
        }
        PackFormat::Int { offset: false, .. } => {
            nibbles::<W>(low, quads);
            (4, 8)
        }
        _ => {
            nibbles::<W>(low, quads);
            (4, 0)
        }
    };
    let is_stored = matches!(format, PackFormat::Int { bits: 8, .. });
    Tile {
        unit,
        bits,
        zero,
        quads: if is_stored { &data[..quads.len()] } else { quads },
        scales,
        offsets: if has_offsets { offsets } else { &[] },
    }
}

#[inline(always)]
fn nibbles<W: Words>(data: &[Lanes<u32>], quads: &mut [Lanes<u32>]) {
    let mask = W::splat(0x0f0f_0f0f);
    for (quads, words) in quads.as_chunks_mut::<2>().0.iter_mut().zip(data) {
        let words = W::load(words);
        words.and(mask).store(&mut quads[0]);
        words.shr(4).and(mask).store(&mut quads[1]);
    }
}

/// Adds the fifth bits. Bit k of byte b of a word belongs to weight 4k + b of 32.
#[inline(always)]
fn five_bits<W: Words>(
    low: &[Lanes<u32>],
    high: &[Lanes<u32>],
    flip: u32,
    quads: &mut [Lanes<u32>],
) {
    let (nibble, bit, flip) = (W::splat(0x0f0f_0f0f), W::splat(0x1010_1010), W::splat(flip));
    let words = low.as_chunks::<4>().0.iter().zip(high);
    for (quads, (low, high)) in quads.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        let high = W::load(high);
        for k in 0..8 {
            let low = W::load(&low[k / 2]).shr(4 * (k as u32 % 2)).and(nibble);
            let upper = if k < 4 { high.shl(4 - k as u32) } else { high.shr(k as u32 - 4) };
            low.or(upper.and(bit)).xor(flip).store(&mut quads[k]);
        }
    }
}

/// Adds the upper two bits. Bits 2k and 2k+1 of byte b of a word belong to weight 4k + b of 16.
#[inline(always)]
fn six_bits<W: Words>(
    low: &[Lanes<u32>],
    high: &[Lanes<u32>],
    flip: u32,
    quads: &mut [Lanes<u32>],
) {
    let (nibble, bits, flip) = (W::splat(0x0f0f_0f0f), W::splat(0x3030_3030), W::splat(flip));
    let words = low.as_chunks::<4>().0.iter().zip(high.as_chunks::<2>().0);
    for (quads, (low, high)) in quads.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        for k in 0..8 {
            let (low, high) = (W::load(&low[k / 2]), W::load(&high[k / 4]));
            let low = low.shr(4 * (k as u32 % 2)).and(nibble);
            let upper = match k as u32 % 4 {
                3 => high.shr(2),
                k => high.shl(4 - 2 * k),
            };
            low.or(upper.and(bits)).xor(flip).store(&mut quads[k]);
        }
    }
}

/// Scales and offsets, one for each unit of columns. Returns whether there are offsets.
#[inline(always)]
fn steps<W: Words>(
    weights: PackedTile<'_>,
    scales: &mut [Lanes<f32>],
    offsets: &mut [Lanes<f32>],
) -> bool {
    let repeats = weights.format.group().unwrap_or(GROUP).div_ceil(GROUP);
    match weights.format {
        PackFormat::Q4K => {
            let blocks = scales.chunks_mut(8).zip(offsets.chunks_mut(8));
            for ((scales, offsets), words) in blocks.zip(weights.scales.as_chunks::<4>().0) {
                q4_k_steps::<W>(words, scales, offsets);
            }
            true
        }
        PackFormat::Int { offset: true, .. } => {
            let units = scales.chunks_mut(repeats).zip(offsets.chunks_mut(repeats));
            for ((scales, offsets), words) in units.zip(weights.scales) {
                let words = W::load(words);
                let (scale, offset) = (half(words), half(words.shr(16)));
                for (scales, offsets) in scales.iter_mut().zip(offsets) {
                    scale.store_f32(scales);
                    offset.store_f32(offsets);
                }
            }
            true
        }
        _ => {
            for (scales, words) in scales.chunks_mut(2 * repeats).zip(weights.scales) {
                let words = W::load(words);
                let (first, second) = scales.split_at_mut(repeats.min(scales.len()));
                for scales in first {
                    half(words).store_f32(scales);
                }
                for scales in second {
                    half(words.shr(16)).store_f32(scales);
                }
            }
            false
        }
    }
}

/// Scales and offsets of up to eight groups, whose layout [`PackFormat`] describes.
#[inline(always)]
fn q4_k_steps<W: Words>(
    words: &[Lanes<u32>; 4],
    scales: &mut [Lanes<f32>],
    offsets: &mut [Lanes<f32>],
) {
    let [steps, low_scales, low_minima, upper] =
        [W::load(&words[0]), W::load(&words[1]), W::load(&words[2]), W::load(&words[3])];
    let (d, dmin) = (half(steps), half(steps.shr(16)));
    let (nibble, upper_scale, upper_minimum) = (W::splat(15), W::splat(3), W::splat(12));
    let sign = W::splat(1 << 31);
    for (g, (scales, offsets)) in scales.iter_mut().zip(offsets).enumerate() {
        let bits = 4 * g as u32;
        let upper = upper.shr(bits);
        let scale = low_scales.shr(bits).and(nibble).or(upper.and(upper_scale).shl(4));
        let minimum = low_minima.shr(bits).and(nibble).or(upper.and(upper_minimum).shl(2));
        d.mul_f32(scale.to_f32()).store_f32(scales);
        dmin.mul_f32(minimum.to_f32()).xor(sign).store_f32(offsets);
    }
}

/// Finite f16 in the low halves as f32, without a processor's instruction for it.
#[inline(always)]
fn half<W: Words>(words: W) -> W {
    let two_to_112 = W::splat(0x7780_0000);
    let magnitude = words.and(W::splat(0x7fff)).shl(13).mul_f32(two_to_112);
    magnitude.or(words.and(W::splat(0x8000)).shl(16))
}
