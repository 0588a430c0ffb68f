//! Operations on f32, in plain loops that compilers vectorize.

use std::f32::consts::{FRAC_2_PI, LOG2_E};

/// Lanes of partial sums: four vectors of the widest registers hide their latency.
const LANES: usize = 32;

/// Σ aᵢ·bᵢ with that `mul_add(a, b, c) = a·b + c`.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32], mul_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] = mul_add(a[lane], b[lane], sums[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let mut eight = [0.0f32; 8];
    for sums in sums.as_chunks::<8>().0 {
        eight.iter_mut().zip(sums).for_each(|(sum, more)| *sum += more);
    }
    eight.iter().sum::<f32>() + rest
}

/// The products of a row of weights with every row of `x`, in every `stride`th element of `out`.
#[inline(always)]
pub fn row(
    weights: &[f32],
    x: &[f32],
    out: &mut [f32],
    stride: usize,
    mul_add: impl Fn(f32, f32, f32) -> f32,
) {
    for (x, out) in x.chunks_exact(weights.len()).zip(out.iter_mut().step_by(stride)) {
        *out = dot(weights, x, &mul_add);
    }
}

/// exp(x) within 2 units in the last place; 0 below −87, and finite above 88.
///
/// x = n·ln 2 + r with an integer n, so that exp(x) = 2ⁿ·exp(r). The Taylor series of degree 6 has
/// exp(r) for |r| ≤ ln 2 / 2.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts. The first one has few bits, so that its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5·2²³ rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let clamped = if clamped > 88.0 { 88.0 } else { clamped };
    let rounded = clamped * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * r + factor;
    }
    let power = f32::from_bits(
        (rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)).wrapping_shl(23),
    );
    if x < -87.0 { 0.0 } else { series * power }
}

/// As [`crate::cpu::ops::gelu_mul`]. Half of 1 + tanh(u) is 1 / (1 + exp(−2u)).
#[inline(always)]
pub fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    let factor = -2.0 * FRAC_2_PI.sqrt();
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = *gate;
        *gate = x / (1.0 + exp(factor * (x + 0.044715 * x * x * x))) * up;
    }
}

/// As [`crate::cpu::ops::softcap`]. tanh(u) is 1 − 2 / (1 + exp(2u)).
#[inline(always)]
pub fn softcap(logits: &mut [f32], cap: f32) {
    for x in logits {
        *x = cap * (1.0 - 2.0 / (1.0 + exp(2.0 / cap * *x)));
    }
}
