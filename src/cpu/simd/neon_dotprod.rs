//! NEON with dot products: 16 products of bytes an instruction.

use std::arch::aarch64::{int8x16_t, int32x4_t};
use std::arch::{asm, is_aarch64_feature_detected};

use crate::cpu::simd::neon::{Dot, dot_tile, level_bytes};
use crate::cpu::simd::{Activations, Lanes, Tile, implement};

/// Proof that the processor has the instructions.
pub struct NeonDotprod(());

impl NeonDotprod {
    pub fn detect() -> Option<Self> {
        (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod"))
            .then_some(NeonDotprod(()))
    }
}

implement! { NeonDotprod, Lanes<u32>, f32::mul_add, { #[target_feature(enable = "neon,dotprod")] } }

impl Dot for NeonDotprod {
    #[inline(always)]
    unsafe fn dot4(mut sums: int32x4_t, weights: int8x16_t, values: int8x16_t) -> int32x4_t {
        // The intrinsic `vdotq_s32` is not stable.
        // SAFETY: the caller has the instruction, which only changes `sums`.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {weights:v}.16b, {values:v}.16b",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                values = in(vreg) values,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn levels(quads: &mut [Lanes<u32>]) {
    // SAFETY: this function has the instructions.
    unsafe { level_bytes(quads) }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn tile(tile: &Tile<'_>, x: &Activations, out: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { dot_tile::<NeonDotprod>(tile, x, out) }
}
