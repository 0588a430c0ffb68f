//! WebAssembly with vectors of 128 bits. Sums have the order of the plain loops, and so their bits.

use std::arch::wasm32::{
    f32x4_add, f32x4_convert_i32x4, f32x4_extract_lane, f32x4_mul, f32x4_splat,
    i16x8_extend_low_i8x16, i16x8_load_extend_i8x8, i32x4_add, i32x4_dot_i16x8, i32x4_shuffle,
    i32x4_splat, v128, v128_load, v128_store,
};

use crate::cpu::simd::{Activations, Tile, UnpackedRow, implement};

/// The instructions, which the whole program has or lacks.
pub struct Simd128;

implement! { Simd128, 0, |a, b, c| a * b + c, {} }

#[inline(always)]
fn load(values: &[f32; 4]) -> v128 {
    // SAFETY: the array has 16 bytes, and the load needs no alignment.
    unsafe { v128_load(values.as_ptr().cast()) }
}

#[inline(always)]
fn store(values: &mut [f32; 4], from: v128) {
    // SAFETY: the array has 16 bytes, and the store needs no alignment.
    unsafe { v128_store(values.as_mut_ptr().cast(), from) }
}

/// Eight signed bytes as 16-bit integers.
#[inline(always)]
fn extend<T: bytemuck::Pod, const N: usize>(values: &[T; N]) -> v128 {
    const { assert!(size_of::<T>() * N == 8) };
    // SAFETY: the array has 8 bytes, and the load needs no alignment.
    unsafe { i16x8_load_extend_i8x8(values.as_ptr().cast()) }
}

/// Adds the sums of the products of two columns.
#[inline(always)]
fn dot_add(sums: v128, weights: v128, values: v128) -> v128 {
    i32x4_add(sums, i32x4_dot_i16x8(weights, values))
}

/// The product of a row of weights with row `row` of activations.
#[inline(always)]
fn dot(weights: &UnpackedRow, bytes: &[u8], _flip: u8, x: &Activations, row: usize) -> f32 {
    match weights.unit {
        16 => dot_row::<2>(weights, bytes, x, row),
        _ => dot_row::<4>(weights, bytes, x, row),
    }
}

/// [`dot`] with a step for each `EIGHTS` vectors of eight columns.
#[inline(always)]
fn dot_row<const EIGHTS: usize>(
    weights: &UnpackedRow,
    bytes: &[u8],
    x: &Activations,
    row: usize,
) -> f32 {
    let steps = x.steps(8 * EIGHTS);
    let at = row * steps.stride;
    let x_scales = steps.scales[at..][..steps.stride].as_chunks::<4>().0;
    let x_sums = steps.sums[at..][..steps.stride].as_chunks::<4>().0;
    let values = x.values[row * x.stride..][..x.stride].as_chunks::<8>().0;
    let bytes = bytes.as_chunks::<8>().0;
    let steps = x_scales
        .iter()
        .zip(x_sums)
        .zip(weights.scales.as_chunks::<4>().0.iter().zip(weights.offsets.as_chunks::<4>().0));
    // The columns of four steps, which the last block may lack.
    let blocks = bytes.chunks(4 * EIGHTS).zip(values.chunks(4 * EIGHTS));
    let mut sums = f32x4_splat(0.0);
    for ((bytes, values), ((x_scale, x_sum), (scale, offset))) in blocks.zip(steps) {
        let mut products = [i32x4_splat(0); 4];
        let units = bytes.as_chunks::<EIGHTS>().0.iter().zip(values.as_chunks::<EIGHTS>().0);
        for (products, (bytes, values)) in products.iter_mut().zip(units) {
            for (bytes, values) in bytes.iter().zip(values) {
                *products = dot_add(*products, extend(bytes), extend(values));
            }
        }
        let scale = f32x4_mul(load(scale), load(x_scale));
        let scaled = f32x4_mul(f32x4_convert_i32x4(horizontal_sums(products)), scale);
        let offset = f32x4_mul(load(offset), load(x_sum));
        sums = f32x4_add(sums, f32x4_add(scaled, offset));
    }
    (f32x4_extract_lane::<0>(sums) + f32x4_extract_lane::<1>(sums))
        + (f32x4_extract_lane::<2>(sums) + f32x4_extract_lane::<3>(sums))
}

/// The sum of each vector's integers.
#[inline(always)]
fn horizontal_sums([a, b, c, d]: [v128; 4]) -> v128 {
    let pairs =
        |a, b| i32x4_add(i32x4_shuffle::<0, 4, 2, 6>(a, b), i32x4_shuffle::<1, 5, 3, 7>(a, b));
    let (low, high) = (pairs(a, b), pairs(c, d));
    i32x4_add(i32x4_shuffle::<0, 1, 4, 5>(low, high), i32x4_shuffle::<2, 3, 6, 7>(low, high))
}

/// The products of a tile with all rows, `[rows, 16]`.
#[inline(always)]
fn tile(tile: &Tile, x: &Activations, out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0;
    for (first, out) in (0..).step_by(2).zip(out.chunks_mut(2)) {
        match (out.first_chunk_mut::<2>(), tile.unit) {
            (Some(out), 16) => tile_rows::<2, 4>(tile, x, first, out),
            (Some(out), _) => tile_rows::<2, 8>(tile, x, first, out),
            (None, unit) => {
                for (row, out) in (first..).zip(out.as_chunks_mut::<1>().0) {
                    match unit {
                        16 => tile_rows::<1, 4>(tile, x, row, out),
                        _ => tile_rows::<1, 8>(tile, x, row, out),
                    }
                }
            }
        }
    }
}

/// `ROWS` rows from `first` on, with a step for each `QUADS` quads of columns.
#[inline(always)]
fn tile_rows<const ROWS: usize, const QUADS: usize>(
    tile: &Tile,
    x: &Activations,
    first: usize,
    out: &mut [[f32; 16]; ROWS],
) {
    let steps = x.steps(4 * QUADS);
    *out = [[0.0; 16]; ROWS];
    let weights = tile.quads.as_chunks::<QUADS>().0.iter();
    for (unit, (quads, (scales, offsets))) in
        weights.zip(tile.scales.iter().zip(&tile.offsets)).enumerate()
    {
        let scales = scales.as_chunks::<8>().0.iter().zip(offsets.as_chunks::<8>().0);
        // Half of the features at once, whose sums fit in registers.
        for (half, (scales, offsets)) in scales.enumerate() {
            let mut products = [[i32x4_splat(0); 4]; ROWS];
            for (q, quad) in quads.iter().enumerate() {
                let quad: &[u32; 8] = &quad.as_chunks().0[half];
                let weights = quad.as_chunks::<2>().0;
                for (row, products) in (first..).zip(&mut products) {
                    let at = row * x.stride + 4 * (unit * QUADS + q);
                    let Some(values) = x.values[at..].first_chunk::<4>() else { return };
                    let values = i32x4_splat(bytemuck::cast::<[i8; 4], i32>(*values));
                    let values = i16x8_extend_low_i8x16(values);
                    for (products, weights) in products.iter_mut().zip(weights) {
                        *products = dot_add(*products, extend(weights), values);
                    }
                }
            }
            for ((row, out), [a, b, c, d]) in (first..).zip(&mut *out).zip(products) {
                let at = row * steps.stride + unit;
                let (x_scale, x_sum) = (f32x4_splat(steps.scales[at]), f32x4_splat(steps.sums[at]));
                let fours = scales.as_chunks::<4>().0.iter().zip(offsets.as_chunks::<4>().0);
                let out = out[8 * half..].as_chunks_mut::<4>().0.iter_mut();
                let products = [pair_sums(a, b), pair_sums(c, d)];
                for ((out, products), (scale, offset)) in out.zip(products).zip(fours) {
                    let scale = f32x4_mul(load(scale), x_scale);
                    let scaled = f32x4_mul(f32x4_convert_i32x4(products), scale);
                    let sum = f32x4_add(scaled, f32x4_mul(load(offset), x_sum));
                    store(out, f32x4_add(load(out), sum));
                }
            }
        }
    }
}

/// Sums of neighbours.
#[inline(always)]
fn pair_sums(a: v128, b: v128) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
}
