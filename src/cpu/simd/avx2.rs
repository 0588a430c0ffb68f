//! AVX2 with FMA: 32 products of bytes in two instructions.

use std::arch::x86_64::{
    __m256, __m256i, _mm_set1_ps, _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps,
    _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set_m128, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps,
};

use crate::cpu::simd::{Activations, Tile, UnpackedRow, implement};

/// Proof that the processor has the instructions.
pub struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

implement! { Avx2, 0, f32::mul_add, { #[target_feature(enable = "avx2,fma")] } }

#[inline]
#[target_feature(enable = "avx2")]
fn load<T: bytemuck::Pod, const N: usize>(values: &[T; N]) -> __m256i {
    const { assert!(size_of::<T>() * N == 32) };
    // SAFETY: the array has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_f32(values: &[f32; 8]) -> __m256 {
    // SAFETY: the array has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_f32(values: &mut [f32; 8], from: __m256) {
    // SAFETY: the array has 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_ps(values.as_mut_ptr(), from) }
}

/// Sums of four products of neighbours. Weights are at most 128 in magnitude and values 127, so
/// that two products fit in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn products(weights: __m256i, magnitudes: __m256i, values: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(values, weights));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// The product of a row of weights with row `row` of activations.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot(weights: &UnpackedRow, bytes: &[u8], _flip: u8, x: &Activations, row: usize) -> f32 {
    let (steps, halves) = (x.steps(weights.unit), weights.unit == 16);
    let at = row * steps.stride;
    let x_scales = steps.scales[at..][..steps.stride].as_chunks::<8>().0;
    let x_sums = steps.sums[at..][..steps.stride].as_chunks::<8>().0;
    let values = x.values[row * x.stride..][..x.stride].as_chunks::<32>().0;
    let bytes = bytes.as_chunks::<32>().0;
    let mut sums = [_mm256_setzero_ps(); 2];
    let mut offsets = _mm256_setzero_ps();
    let groups = if halves { 4 } else { 8 };
    let blocks = bytes.chunks(groups).zip(values.chunks(groups));
    let steps = x_scales
        .iter()
        .zip(x_sums)
        .zip(weights.scales.as_chunks::<8>().0.iter().zip(weights.offsets.as_chunks::<8>().0));
    for ((bytes, values), ((x_scale, x_sum), (scale, offset))) in blocks.zip(steps) {
        let mut scales = [0.0; 8];
        store_f32(&mut scales, _mm256_mul_ps(load_f32(scale), load_f32(x_scale)));
        offsets = _mm256_fmadd_ps(load_f32(offset), load_f32(x_sum), offsets);
        for (group, (bytes, values)) in bytes.iter().zip(values).enumerate() {
            let weights = load(bytes);
            let products = products(weights, _mm256_abs_epi8(weights), load(values));
            let scale = match halves {
                true => _mm256_set_m128(
                    _mm_set1_ps(scales[(2 * group + 1) % 8]),
                    _mm_set1_ps(scales[2 * group % 8]),
                ),
                false => _mm256_set1_ps(scales[group % 8]),
            };
            let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale, sums[0]);
            sums = [sums[1], sum];
        }
    }
    let mut lanes = [0.0; 8];
    store_f32(&mut lanes, _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), offsets));
    lanes.into_iter().sum()
}

/// The products of a tile with all rows, `[rows, 16]`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile(tile: &Tile, x: &Activations, out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0;
    for (first, out) in (0..).step_by(4).zip(out.chunks_mut(4)) {
        match (out.first_chunk_mut::<4>(), tile.unit) {
            (Some(out), 16) => tile_rows::<4, 4>(tile, x, first, out),
            (Some(out), _) => tile_rows::<4, 8>(tile, x, first, out),
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
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile_rows<const ROWS: usize, const QUADS: usize>(
    tile: &Tile,
    x: &Activations,
    first: usize,
    out: &mut [[f32; 16]; ROWS],
) {
    let steps = x.steps(4 * QUADS);
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let weights = tile.quads.as_chunks::<QUADS>().0.iter();
    for (unit, (quads, (scale, offset))) in
        weights.zip(tile.scales.iter().zip(&tile.offsets)).enumerate()
    {
        let mut sums_of_unit = [[_mm256_setzero_si256(); 2]; ROWS];
        for (q, quad) in quads.iter().enumerate() {
            for (half, quad) in quad.as_chunks::<8>().0.iter().enumerate() {
                let weights = load(quad);
                let magnitudes = _mm256_abs_epi8(weights);
                for (row, sums) in (first..).zip(&mut sums_of_unit) {
                    let at = row * x.stride + 4 * (unit * QUADS + q);
                    let Some(values) = x.values[at..].first_chunk::<4>() else { return };
                    let values = bytemuck::cast::<[i8; 4], i32>(*values);
                    let products = products(weights, magnitudes, _mm256_set1_epi32(values));
                    sums[half] = _mm256_add_epi32(sums[half], products);
                }
            }
        }
        for ((row, sums), products) in (first..).zip(&mut sums).zip(sums_of_unit) {
            let at = row * steps.stride + unit;
            let (x_scale, x_sum) =
                (_mm256_set1_ps(steps.scales[at]), _mm256_set1_ps(steps.sums[at]));
            let columns = scale.as_chunks::<8>().0.iter().zip(offset.as_chunks::<8>().0);
            for ((sum, products), (scale, offset)) in sums.iter_mut().zip(products).zip(columns) {
                let scale = _mm256_mul_ps(load_f32(scale), x_scale);
                *sum = _mm256_fmadd_ps(load_f32(offset), x_sum, *sum);
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale, *sum);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            store_f32(out, sum);
        }
    }
}
