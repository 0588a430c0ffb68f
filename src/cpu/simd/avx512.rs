//! AVX-512 with VNNI: 64 products of bytes an instruction.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_or_si512,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_sllv_epi32, _mm512_srlv_epi32, _mm512_storeu_ps,
    _mm512_storeu_si512, _mm512_xor_si512,
};

use crate::cpu::simd::{Activations, Lanes, Tile, implement, register};
use crate::quant::IQ4_LEVELS;

/// Proof that the processor has the instructions.
pub struct Avx512(());

impl Avx512 {
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma"))
        .then_some(Avx512(()))
    }
}

implement! {
    Avx512, Register, f32::mul_add,
    { #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")] }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &Lanes<u32>) -> __m512i {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_f32(values: &Lanes<f32>) -> __m512 {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_f32(values: &mut Lanes<f32>, from: __m512) {
    // SAFETY: the array has 64 bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), from) }
}

register! {
    Register([__m512i; 1]), _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32,
    _mm512_and_si512, _mm512_or_si512, _mm512_xor_si512, _mm512_sllv_epi32, _mm512_srlv_epi32,
    |a, b| unsafe {
        let product = _mm512_mul_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
        _mm512_castps_si512(product)
    },
    |a| unsafe { _mm512_castps_si512(_mm512_cvtepi32_ps(a)) }
}

/// Replaces each byte by the level with this index.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn levels(quads: &mut [Lanes<u32>]) {
    // SAFETY: the array has 16 bytes, and the load needs no alignment.
    let levels = unsafe { _mm_loadu_si128(IQ4_LEVELS.as_ptr().cast()) };
    let levels = _mm512_broadcast_i32x4(levels);
    for quad in quads {
        let bytes = _mm512_shuffle_epi8(levels, load(quad));
        // SAFETY: the array has 64 bytes, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(quad.as_mut_ptr().cast(), bytes) }
    }
}

/// The products of a tile with all rows, `[rows, FEATURES]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    match tile.unit {
        16 => blocks::<4>(tile, x, out),
        _ => blocks::<8>(tile, x, out),
    }
}

/// Divides rows into blocks that share loads of weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn blocks<const QUADS: usize>(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    let (eights, rest) = out.as_chunks_mut().0.as_chunks_mut::<8>();
    let (fours, rest) = rest.as_chunks_mut::<4>();
    let (twos, ones) = rest.as_chunks_mut::<2>();
    let mut row = 0;
    for block in eights {
        tile_rows::<8, QUADS>(tile, x, row, block);
        row += 8;
    }
    for block in fours {
        tile_rows::<4, QUADS>(tile, x, row, block);
        row += 4;
    }
    for block in twos {
        tile_rows::<2, QUADS>(tile, x, row, block);
        row += 2;
    }
    for block in ones.as_chunks_mut().0 {
        tile_rows::<1, QUADS>(tile, x, row, block);
    }
}

/// `ROWS` rows from `first` on, with a step for each `QUADS` quads of columns.
///
/// The instruction multiplies unsigned with signed bytes. Signed weights become unsigned by xor
/// with 128, which adds 128 to them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile_rows<const ROWS: usize, const QUADS: usize>(
    tile: &Tile<'_>,
    x: &Activations,
    first: usize,
    out: &mut [Lanes<f32>; ROWS],
) {
    let steps = x.steps(4 * QUADS);
    let (weights, scales) = (tile.quads.as_chunks::<QUADS>().0, tile.scales);
    let units = weights.len().min(scales.len());
    let (flip, zero) = if tile.bits == 8 { (-128i8, 128) } else { (0, tile.zero) };
    let flip = _mm512_set1_epi8(flip);
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
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for unit in 0..units {
        let mut quads = [_mm512_setzero_si512(); QUADS];
        for (quad, weights) in quads.iter_mut().zip(&weights[unit]) {
            *quad = _mm512_xor_si512(load(weights), flip);
        }
        let scale = load_f32(&scales[unit]);
        for row in 0..ROWS {
            let mut products = _mm512_set1_epi32(-zero * integers[row][unit]);
            for (quad, values) in quads.iter().zip(&values[row][unit]) {
                let values = _mm512_set1_epi32(i32::from_ne_bytes(values.map(|x| x as u8)));
                products = _mm512_dpbusd_epi32(products, *quad, values);
            }
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x_scales[row][unit]));
            sums[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[row]);
        }
        if let Some(offset) = tile.offsets.get(unit) {
            let offset = load_f32(offset);
            for row in 0..ROWS {
                let x_sum = _mm512_set1_ps(x_sums[row][unit]);
                sums[row] = _mm512_fmadd_ps(offset, x_sum, sums[row]);
            }
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        store_f32(out, sum);
    }
}
