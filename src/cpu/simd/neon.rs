//! NEON, which every arm64 processor has: 16 products of bytes in four instructions.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s32, vfmaq_f32,
    vfmaq_n_f32, vget_low_s8, vld1q_f32, vld1q_s8, vld1q_u8, vmull_high_s8, vmull_s8, vmulq_n_f32,
    vpadalq_s16, vpaddq_s16, vqtbl1q_s8, vreinterpretq_s8_s32, vst1q_f32, vst1q_s8,
};
use std::arch::is_aarch64_feature_detected;

use crate::cpu::simd::{Activations, Lanes, Tile, implement};
use crate::quant::IQ4_LEVELS;

/// Proof that the processor has the instructions.
pub struct Neon(());

impl Neon {
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

implement! { Neon, Lanes<u32>, f32::mul_add, { #[target_feature(enable = "neon")] } }

/// Integer dot products of bytes.
pub trait Dot {
    /// Adds products to `sums`: those of bytes 4i to 4i + 3 to sum i. Values are at most 127 in
    /// magnitude.
    ///
    /// # Safety
    ///
    /// The function into which this is inlined has the instructions.
    unsafe fn dot4(sums: int32x4_t, weights: int8x16_t, values: int8x16_t) -> int32x4_t;
}

impl Dot for Neon {
    #[inline(always)]
    unsafe fn dot4(sums: int32x4_t, weights: int8x16_t, values: int8x16_t) -> int32x4_t {
        // SAFETY: the caller has the instructions.
        unsafe {
            let low = vmull_s8(vget_low_s8(weights), vget_low_s8(values));
            let high = vmull_high_s8(weights, values);
            // Weights are at most 128 in magnitude, so that two products fit in 16 bits.
            vpadalq_s16(sums, vpaddq_s16(low, high))
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn levels(quads: &mut [Lanes<u32>]) {
    // SAFETY: this function has the instructions.
    unsafe { level_bytes(quads) }
}

#[inline]
#[target_feature(enable = "neon")]
fn tile(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { dot_tile::<Neon>(tile, x, out) }
}

#[inline(always)]
fn load<T: bytemuck::Pod, const N: usize>(values: &[T; N]) -> int8x16_t {
    const { assert!(size_of::<T>() * N == 16) };
    // SAFETY: the array has 16 bytes, and the load needs no alignment.
    unsafe { vld1q_s8(values.as_ptr().cast()) }
}

#[inline(always)]
fn load_f32(values: &[f32; 4]) -> float32x4_t {
    // SAFETY: the array has four numbers, and the load needs no alignment.
    unsafe { vld1q_f32(values.as_ptr()) }
}

#[inline(always)]
fn store_f32(values: &mut [f32; 4], from: float32x4_t) {
    // SAFETY: the array has four numbers, and the store needs no alignment.
    unsafe { vst1q_f32(values.as_mut_ptr(), from) }
}

/// Replaces each byte by the level with this index.
///
/// # Safety
///
/// The function into which this is inlined has NEON.
#[inline(always)]
pub unsafe fn level_bytes(quads: &mut [Lanes<u32>]) {
    // SAFETY: the caller has the instructions. Arrays have 16 bytes, and need no alignment.
    unsafe {
        let levels = vld1q_s8(IQ4_LEVELS.as_ptr());
        for four in quads.as_flattened_mut().as_chunks_mut::<4>().0 {
            let indexes = vld1q_u8(four.as_ptr().cast());
            vst1q_s8(four.as_mut_ptr().cast(), vqtbl1q_s8(levels, indexes));
        }
    }
}

/// The products of a tile with all rows, `[rows, 16]`.
///
/// # Safety
///
/// The function into which this is inlined has the instructions of `D`.
#[inline(always)]
pub unsafe fn dot_tile<D: Dot>(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0;
    for (first, out) in (0..).step_by(4).zip(out.chunks_mut(4)) {
        // SAFETY: the caller has the instructions.
        unsafe {
            match (out.first_chunk_mut::<4>(), tile.unit) {
                (Some(out), 16) => tile_rows::<D, 4, 4>(tile, x, first, out),
                (Some(out), _) => tile_rows::<D, 4, 8>(tile, x, first, out),
                (None, unit) => {
                    for (row, out) in (first..).zip(out.as_chunks_mut::<1>().0) {
                        match unit {
                            16 => tile_rows::<D, 1, 4>(tile, x, row, out),
                            _ => tile_rows::<D, 1, 8>(tile, x, row, out),
                        }
                    }
                }
            }
        }
    }
}

/// `ROWS` rows from `first` on, with a step for each `QUADS` quads of columns.
///
/// # Safety
///
/// As [`dot_tile`].
#[inline(always)]
unsafe fn tile_rows<D: Dot, const ROWS: usize, const QUADS: usize>(
    tile: &Tile<'_>,
    x: &Activations,
    first: usize,
    out: &mut [Lanes<f32>; ROWS],
) {
    let steps = x.steps(4 * QUADS);
    let weights = tile.quads.as_chunks::<QUADS>().0.iter();
    // SAFETY: the caller has the instructions.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); 4]; ROWS];
        for (unit, (quads, scale)) in weights.zip(tile.scales).enumerate() {
            let mut sums_of_unit = [[vdupq_n_s32(0); 4]; ROWS];
            for (row, sums) in (first..).zip(&mut sums_of_unit) {
                let zeros = -tile.zero * steps.integers[row * steps.stride + unit];
                *sums = [vdupq_n_s32(zeros); 4];
            }
            for (q, quad) in quads.iter().enumerate() {
                for (row, sums) in (first..).zip(&mut sums_of_unit) {
                    let at = row * x.stride + 4 * (unit * QUADS + q);
                    let Some(values) = x.values[at..].first_chunk::<4>() else { return };
                    let values = vdupq_n_s32(bytemuck::cast::<[i8; 4], i32>(*values));
                    for (sums, quad) in sums.iter_mut().zip(quad.as_chunks::<4>().0) {
                        *sums = D::dot4(*sums, load(quad), vreinterpretq_s8_s32(values));
                    }
                }
            }
            for ((row, sums), products) in (first..).zip(&mut sums).zip(sums_of_unit) {
                let at = row * steps.stride + unit;
                let (x_scale, x_sum) = (steps.scales[at], steps.sums[at]);
                let scales = scale.as_chunks::<4>().0;
                for ((sum, products), scale) in sums.iter_mut().zip(products).zip(scales) {
                    let scale = vmulq_n_f32(load_f32(scale), x_scale);
                    *sum = vfmaq_f32(*sum, vcvtq_f32_s32(products), scale);
                }
                if let Some(offset) = tile.offsets.get(unit) {
                    for (sum, offset) in sums.iter_mut().zip(offset.as_chunks::<4>().0) {
                        *sum = vfmaq_n_f32(*sum, load_f32(offset), x_sum);
                    }
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sum) in out.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
                store_f32(out, sum);
            }
        }
    }
}
