//! WebAssembly with vectors of 128 bits. Sums have the order of the plain loops, and so their bits.

use std::arch::wasm32::{
    f32x4_add, f32x4_convert_i32x4, f32x4_mul, f32x4_splat, i8x16_swizzle, i16x8_extend_low_i8x16,
    i16x8_load_extend_i8x8, i32x4_add, i32x4_dot_i16x8, i32x4_shuffle, i32x4_splat, v128,
    v128_load, v128_store,
};

use crate::cpu::simd::{Activations, Lanes, Tile, implement};
use crate::quant::IQ4_LEVELS;

/// The instructions, which the whole program has or lacks.
pub struct Simd128;

implement! { Simd128, Lanes<u32>, |a, b, c| a * b + c, {} }

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

/// Replaces each byte by the level with this index.
#[inline(always)]
fn levels(quads: &mut [Lanes<u32>]) {
    // SAFETY: the arrays have 16 bytes, and loads and stores need no alignment.
    unsafe {
        let levels = v128_load(IQ4_LEVELS.as_ptr().cast());
        for four in quads.as_flattened_mut().as_chunks_mut::<4>().0 {
            let indexes = v128_load(four.as_ptr().cast());
            v128_store(four.as_mut_ptr().cast(), i8x16_swizzle(levels, indexes));
        }
    }
}

/// The products of a tile with all rows, `[rows, 16]`.
#[inline(always)]
fn tile(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
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
    tile: &Tile<'_>,
    x: &Activations,
    first: usize,
    out: &mut [Lanes<f32>; ROWS],
) {
    let steps = x.steps(4 * QUADS);
    *out = [[0.0; 16]; ROWS];
    let weights = tile.quads.as_chunks::<QUADS>().0.iter();
    for (unit, (quads, scales)) in weights.zip(tile.scales).enumerate() {
        // Half of the features at once, whose sums fit in registers.
        for (half, scales) in scales.as_chunks::<8>().0.iter().enumerate() {
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
                let zeros = i32x4_splat(-tile.zero * steps.integers[at]);
                let out = out[8 * half..][..8].as_chunks_mut::<4>().0;
                let products = [pair_sums(a, b), pair_sums(c, d)];
                for ((out, products), scale) in
                    out.iter_mut().zip(products).zip(scales.as_chunks::<4>().0)
                {
                    let scale = f32x4_mul(load(scale), x_scale);
                    let products = f32x4_convert_i32x4(i32x4_add(products, zeros));
                    store(out, f32x4_add(load(out), f32x4_mul(products, scale)));
                }
                if let Some(offsets) = tile.offsets.get(unit) {
                    let offsets = offsets.as_chunks::<8>().0[half];
                    for (out, offset) in out.iter_mut().zip(offsets.as_chunks::<4>().0) {
                        store(out, f32x4_add(load(out), f32x4_mul(load(offset), x_sum)));
                    }
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
