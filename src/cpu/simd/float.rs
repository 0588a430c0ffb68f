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
    let mut total = 0.0;
    for (a, b) in a_rest.iter().zip(b_rest) {
        total += a * b;
    }
    let mut eight = [0.0f32; 8];
    for sums in sums.as_chunks::<8>().0 {
        for (sum, more) in eight.iter_mut().zip(sums) {
            *sum += more;
        }
    }
    for sum in eight {
        total += sum;
    }
    total
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

/// exp(x) within 2 units in the last place; 0 below −87, and ∞ above 88.
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
    let inside = if x < -87.0 { 0.0 } else { series * power };
    if x > 88.0 { f32::INFINITY } else { inside }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::instructions::Instructions;
    use crate::cpu::ops::{self, testing::random};

    #[test]
    fn exp_follows_the_formula() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0 + 0.003;
            let expected = (x as f64).exp();
            let error = (exp(x) as f64 - expected).abs() / expected;
            assert!(!(-87.0..=88.0).contains(&x) || error < 2.5e-7, "{x}: {error}");
        }
        assert_eq!((exp(0.0), exp(-1e30), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(1e30) == f32::INFINITY && exp(f32::NAN).is_nan());
    }

    #[test]
    fn functions_agree_with_their_twins() {
        for instructions in Instructions::available() {
            let set = instructions.set().unwrap();
            for len in [1, 7, 33, 700] {
                let x: Vec<f32> = random(len, 1).iter().map(|x| 12.0 * x).collect();
                let up = random(len, 2);
                let (mut found, mut expected) = (x.clone(), x.clone());
                set.gelu_mul(&mut found, &up);
                ops::gelu_mul(&mut expected, &up);
                assert_near(&found, &expected, 2e-6);
                let (mut found, mut expected) = (x.clone(), x);
                set.softcap(&mut found, 5.0);
                ops::softcap(&mut expected, 5.0);
                assert_near(&found, &expected, 2e-6);
            }
        }
    }

    #[test]
    fn extremes_are_those_of_the_twins() {
        for instructions in Instructions::available() {
            let set = instructions.set().unwrap();
            let x = [-1e30, -200.0, -40.0, 0.0, 40.0, 200.0, 1e30];
            let (mut found, mut expected) = (x, x);
            set.gelu_mul(&mut found, &[1.0; 7]);
            ops::gelu_mul(&mut expected, &[1.0; 7]);
            assert_eq!(found, expected);
            let (mut found, mut expected) = (x, x);
            set.softcap(&mut found, 30.0);
            ops::softcap(&mut expected, 30.0);
            assert_near(&found, &expected, 1e-5);
        }
    }

    #[track_caller]
    fn assert_near(found: &[f32], expected: &[f32], tolerance: f32) {
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let bound = tolerance * expected.abs().max(1.0);
            assert!((found - expected).abs() <= bound, "{i}: {found}, not {expected}");
        }
    }
}
