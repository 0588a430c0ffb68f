//! AVX-512 with VNNI: 64 products of bytes an instruction.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_permutexvar_ps,
    _mm512_reduce_add_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps, _mm512_xor_si512,
};

use crate::cpu::simd::{Activations, Tile, UnpackedRow, implement};

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
    Avx512, 0x80, f32::mul_add,
    { #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")] }
}

/// For the 64 columns j of 16 steps: the step of each lane.
const fn lanes(columns: usize) -> [[i32; 16]; 8] {
    let (steps, mut lanes) = (64 / columns, [[0; 16]; 8]);
    let mut at = 0;
    while at < 8 * 16 {
        lanes[at / 16][at % 16] = ((at / 16 * steps + at % 16 * 4 / columns) % 16) as i32;
        at += 1;
    }
    lanes
}

static WHOLE: [[i32; 16]; 8] = lanes(32);
static HALVES: [[i32; 16]; 8] = lanes(16);

#[inline]
#[target_feature(enable = "avx512f")]
fn load<T: bytemuck::Pod, const N: usize>(values: &[T; N]) -> __m512i {
    const { assert!(size_of::<T>() * N == 64) };
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_f32(values: &[f32; 16]) -> __m512 {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_f32(values: &mut [f32; 16], from: __m512) {
    // SAFETY: the array has 64 bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), from) }
}

/// The product of a row of weights with row `row` of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot(weights: &UnpackedRow, bytes: &[u8], flip: u8, x: &Activations, row: usize) -> f32 {
    let steps = x.steps(weights.unit);
    let (lanes, chunks) = if weights.unit == 16 { (&HALVES, 4) } else { (&WHOLE, 8) };
    let at = row * steps.stride;
    let x_scales = steps.scales[at..][..steps.stride].as_chunks::<16>().0;
    let x_sums = steps.sums[at..][..steps.stride].as_chunks::<16>().0;
    let values = x.values[row * x.stride..][..x.stride].as_chunks::<64>().0;
    let bytes = bytes.as_chunks::<64>().0;
    let flip = _mm512_set1_epi8(flip as i8);
    let mut sums = [_mm512_setzero_ps(); 2];
    let mut offsets = _mm512_setzero_ps();
    let blocks = bytes.chunks(chunks).zip(values.chunks(chunks));
    let steps = x_scales
        .iter()
        .zip(x_sums)
        .zip(weights.scales.as_chunks::<16>().0.iter().zip(weights.offsets.as_chunks::<16>().0));
    for ((bytes, values), ((x_scale, x_sum), (scale, offset))) in blocks.zip(steps) {
        let scale = _mm512_mul_ps(load_f32(scale), load_f32(x_scale));
        offsets = _mm512_fmadd_ps(load_f32(offset), load_f32(x_sum), offsets);
        for ((bytes, values), lanes) in bytes.iter().zip(values).zip(lanes) {
            let bytes = _mm512_xor_si512(load(bytes), flip);
            let products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes, load(values));
            let scale = _mm512_permutexvar_ps(load(lanes), scale);
            let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[0]);
            sums = [sums[1], sum];
        }
    }
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), offsets))
}

/// The products of a tile with all rows, `[rows, 16]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile(tile: &Tile, x: &Activations, out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0;
    for (first, out) in (0..).step_by(8).zip(out.chunks_mut(8)) {
        match (out.first_chunk_mut::<8>(), tile.unit) {
            (Some(out), 16) => tile_rows::<8, 4>(tile, x, first, out),
            (Some(out), _) => tile_rows::<8, 8>(tile, x, first, out),
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
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile_rows<const ROWS: usize, const QUADS: usize>(
    tile: &Tile,
    x: &Activations,
    first: usize,
    out: &mut [[f32; 16]; ROWS],
) {
    let steps = x.steps(4 * QUADS);
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let weights = tile.quads.as_chunks::<QUADS>().0.iter();
    for (unit, (quads, (scale, offset))) in
        weights.zip(tile.scales.iter().zip(&tile.offsets)).enumerate()
    {
        let (scale, offset) = (load_f32(scale), load_f32(offset));
        let mut weights = [_mm512_setzero_si512(); QUADS];
        for (weights, quad) in weights.iter_mut().zip(quads) {
            *weights = load(quad);
        }
        for (row, sum) in (first..).zip(&mut sums) {
            let values = x.values[row * x.stride + unit * 4 * QUADS..].as_chunks::<4>().0;
            let values: &[[i8; 4]; QUADS] = match values.first_chunk() {
                Some(values) => values,
                None => return,
            };
            let mut products = _mm512_setzero_si512();
            for (weights, values) in weights.iter().zip(values) {
                let values = bytemuck::cast::<[i8; 4], i32>(*values);
                products = _mm512_dpbusd_epi32(products, *weights, _mm512_set1_epi32(values));
            }
            let at = row * steps.stride + unit;
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(steps.scales[at]));
            *sum = _mm512_fmadd_ps(offset, _mm512_set1_ps(steps.sums[at]), *sum);
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, *sum);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        store_f32(out, sum);
    }
}
