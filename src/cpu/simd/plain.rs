//! Any processor: loops that a compiler may vectorize with its least instructions.

use crate::cpu::simd::{Activations, Tile, UnpackedRow, implement};

/// No instructions beyond those of every processor.
pub struct Plain;

implement! { Plain, 0, |a, b, c| a * b + c, {} }

/// The product of a row of weights with row `row` of activations.
#[inline]
fn dot(weights: &UnpackedRow, bytes: &[u8], _flip: u8, x: &Activations, row: usize) -> f32 {
    let (steps, unit) = (x.steps(weights.unit), weights.unit);
    let at = row * steps.stride;
    let (x_scales, x_sums) = (&steps.scales[at..], &steps.sums[at..]);
    let values = &x.values[row * x.stride..][..x.stride];
    // Four sums, as vectors of that length have.
    let mut sums = [0.0; 4];
    for (step, (bytes, values)) in bytes.chunks(unit).zip(values.chunks(unit)).enumerate() {
        let products: i32 =
            bytes.iter().zip(values).map(|(&q, &x)| q as i8 as i32 * x as i32).sum();
        sums[step % 4] += products as f32 * (weights.scales[step] * x_scales[step])
            + weights.offsets[step] * x_sums[step];
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The products of a tile with all rows, `[rows, 16]`.
#[inline]
fn tile(tile: &Tile, x: &Activations, out: &mut [f32]) {
    let steps = x.steps(tile.unit);
    for (row, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        *out = [0.0; 16];
        let values = x.values[row * x.stride..][..x.stride].as_chunks::<4>().0;
        let units = tile.quads.chunks(tile.unit / 4).zip(values.chunks(tile.unit / 4));
        for (unit, (quads, values)) in units.enumerate() {
            let mut products = [0i32; 16];
            for (quad, values) in quads.iter().zip(values) {
                for (product, weights) in products.iter_mut().zip(quad) {
                    let weights = weights.to_ne_bytes();
                    *product += (weights.iter().zip(values))
                        .map(|(&q, &x)| q as i8 as i32 * x as i32)
                        .sum::<i32>();
                }
            }
            let at = row * steps.stride + unit;
            for (lane, out) in out.iter_mut().enumerate() {
                *out += products[lane] as f32 * (tile.scales[unit][lane] * steps.scales[at])
                    + tile.offsets[unit][lane] * steps.sums[at];
            }
        }
    }
}
