//! AVX2 with FMA: 32 products of bytes in two instructions.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8,
    _mm256_sllv_epi32, _mm256_srlv_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_xor_si256,
};

use crate::cpu::simd::{Activations, Lanes, Tile, implement, register};
use crate::quant::IQ4_LEVELS;

/// Proof that the processor has the instructions.
pub struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

implement! { Avx2, Registers, f32::mul_add, { #[target_feature(enable = "avx2,fma")] } }

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[u32; 8]) -> __m256i {
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

register! {
    Registers([__m256i; 2]), _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32,
    _mm256_and_si256, _mm256_or_si256, _mm256_xor_si256, _mm256_sllv_epi32, _mm256_srlv_epi32,
    |a, b| unsafe {
        let product = _mm256_mul_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
        _mm256_castps_si256(product)
    },
    |a| unsafe { _mm256_castps_si256(_mm256_cvtepi32_ps(a)) }
}

/// Replaces each byte by the level with this index.
#[inline]
#[target_feature(enable = "avx2")]
fn levels(quads: &mut [Lanes<u32>]) {
    // SAFETY: the array has 16 bytes, and the load needs no alignment.
    let levels = unsafe { _mm_loadu_si128(IQ4_LEVELS.as_ptr().cast()) };
    let levels = _mm256_broadcastsi128_si256(levels);
    for half in quads.as_flattened_mut().as_chunks_mut::<8>().0 {
        let bytes = _mm256_shuffle_epi8(levels, load(half));
        // SAFETY: the array has 32 bytes, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), bytes) }
    }
}

/// The products of a tile with all rows, `[rows, FEATURES]`.
///
/// A pair of products is at most 2·127·q, of which a sum of 16 bits holds some without overflow.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    match (tile.unit, tile.bits) {
        (16, 4) => blocks::<4, 4>(tile, x, out),
        (16, 5) => blocks::<4, 4>(tile, x, out),
        (16, 6) => blocks::<4, 2>(tile, x, out),
        (16, _) => blocks::<4, 1>(tile, x, out),
        (_, 4) => blocks::<8, 8>(tile, x, out),
        (_, 5) => blocks::<8, 4>(tile, x, out),
        (_, 6) => blocks::<8, 2>(tile, x, out),
        _ => blocks::<8, 1>(tile, x, out),
    }
}

/// Divides rows into blocks that share loads of weights.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn blocks<const QUADS: usize, const RUN: usize>(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    let (fours, ones) = out.as_chunks_mut().0.as_chunks_mut::<4>();
    let mut row = 0;
    for block in fours {
        tile_rows::<4, QUADS, RUN>(tile, x, row, block);
        row += 4;
    }
    for block in ones.as_chunks_mut().0 {
        tile_rows::<1, QUADS, RUN>(tile, x, row, block);
        row += 1;
    }
}

/// `ROWS` rows from `first` on, with a step for each `QUADS` quads of columns. Sums of 16 bits hold
/// `RUN` pairs of products. `RUN` = 1 is for signed weights.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile_rows<const ROWS: usize, const QUADS: usize, const RUN: usize>(
    tile: &Tile<'_>,
    x: &Activations,
    first: usize,
    out: &mut [Lanes<f32>; ROWS],
) {
    let steps = x.steps(4 * QUADS);
    let (weights, scales) = (tile.quads.as_chunks::<QUADS>().0, tile.scales);
    let units = weights.len().min(scales.len());
    let mut values = [[].as_slice(); ROWS];
    let (mut x_scales, mut integers, mut x_sums) =
        ([[].as_slice(); ROWS], [[].as_slice(); ROWS], [[].as_slice(); ROWS]);
    for row in 0..ROWS {
        let of_row = &x.values[(first + row) * x.stride..][..x.stride];
        values[row] = &of_row.as_chunks::<4>().0.as_chunks::<QUADS>().0[..units];
        let at = (first + row) * steps.stride;
        x_scales[row] = &steps.scales[at..][..units];
        integers[row] = &steps.integers[at..][..units];
        x_sums[row] = &steps.sums[at..][..units];
    }
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for unit in 0..units {
        let scale = scales[unit].as_chunks::<8>().0;
        for half in 0..2 {
            let mut products = [_mm256_setzero_si256(); ROWS];
            for row in 0..ROWS {
                products[row] = _mm256_set1_epi32(-tile.zero * integers[row][unit]);
            }
            for run in 0..QUADS / RUN {
                let mut pairs = [_mm256_setzero_si256(); ROWS];
                for quad in run * RUN..(run + 1) * RUN {
                    let weights = load(&weights[unit][quad].as_chunks::<8>().0[half]);
                    let magnitudes = if RUN == 1 { _mm256_abs_epi8(weights) } else { weights };
                    for row in 0..ROWS {
                        let values = values[row][unit][quad].map(|x| x as u8);
                        let mut values = _mm256_set1_epi32(i32::from_ne_bytes(values));
                        if RUN == 1 {
                            values = _mm256_sign_epi8(values, weights);
                        }
                        let products = _mm256_maddubs_epi16(magnitudes, values);
                        pairs[row] = _mm256_add_epi16(pairs[row], products);
                    }
                }
                for row in 0..ROWS {
                    let fours = _mm256_madd_epi16(pairs[row], ones);
                    products[row] = _mm256_add_epi32(products[row], fours);
                }
            }
            let scale = load_f32(&scale[half]);
            for row in 0..ROWS {
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x_scales[row][unit]));
                let products = _mm256_cvtepi32_ps(products[row]);
                sums[row][half] = _mm256_fmadd_ps(products, scale, sums[row][half]);
            }
        }
        if let Some(offset) = tile.offsets.get(unit) {
            for (half, offset) in offset.as_chunks::<8>().0.iter().enumerate() {
                let offset = load_f32(offset);
                for row in 0..ROWS {
                    let x_sum = _mm256_set1_ps(x_sums[row][unit]);
                    sums[row][half] = _mm256_fmadd_ps(offset, x_sum, sums[row][half]);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            store_f32(out, sum);
        }
    }
}
