//! Any processor: loops that a compiler may vectorize with its least instructions.

use crate::cpu::simd::{Activations, FEATURES, Lanes, Tile, implement};
use crate::quant::IQ4_LEVELS;

/// No instructions beyond those of every processor.
pub struct Plain;

implement! { Plain, Lanes<u32>, |a, b, c| a * b + c, {} }

#[inline]
fn levels(quads: &mut [Lanes<u32>]) {
    for word in quads.as_flattened_mut() {
        let bytes = word.to_ne_bytes().map(|index| IQ4_LEVELS[(index & 15) as usize] as u8);
        *word = u32::from_ne_bytes(bytes);
    }
}

/// The products of a tile with all rows, `[rows, FEATURES]`.
#[inline]
fn tile(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    let steps = x.steps(tile.unit);
    for (row, out) in out.as_chunks_mut::<FEATURES>().0.iter_mut().enumerate() {
        *out = [0.0; FEATURES];
        let values = x.values[row * x.stride..][..x.stride].as_chunks::<4>().0;
        let units = tile.quads.chunks(tile.unit / 4).zip(values.chunks(tile.unit / 4));
        for (unit, (quads, values)) in units.enumerate() {
            let at = row * steps.stride + unit;
            let mut products = [-tile.zero * steps.integers[at]; FEATURES];
            for (quad, values) in quads.iter().zip(values) {
                for (product, weights) in products.iter_mut().zip(quad) {
                    let weights = weights.to_le_bytes();
                    *product += (weights.iter().zip(values))
                        .map(|(&q, &x)| q as i8 as i32 * x as i32)
                        .sum::<i32>();
                }
            }
            for (lane, out) in out.iter_mut().enumerate() {
                *out += products[lane] as f32 * (tile.scales[unit][lane] * steps.scales[at]);
            }
            if let Some(offsets) = tile.offsets.get(unit) {
                for (out, offset) in out.iter_mut().zip(offsets) {
                    *out += offset * steps.sums[at];
                }
            }
        }
    }
}
