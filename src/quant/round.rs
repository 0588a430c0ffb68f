//! Rounding floats to the integers of a [`PackFormat`](super::PackFormat), one group at a time.
//!
//! Scales and offsets are rounded to f16 first. The integers are then chosen for the rounded ones,
//! so that the two errors do not add up.

use half::f16;

/// Longest group.
pub(super) const MAX_GROUP: usize = 128;

/// Scale and offset of a group. The offset is 0 for formats without one.
pub(super) struct Rounded {
    pub scale: f16,
    pub offset: f16,
}

/// The nearest f16. Errors, naming `what`, if the value is not finite or beyond f16's range.
#[inline]
pub(super) fn finite_f16(what: &str, value: f32) -> Result<f16, String> {
    let rounded = f16::from_f32(value);
    match (rounded.is_finite(), value.is_finite()) {
        (true, _) => Ok(rounded),
        (false, true) => {
            Err(format!("the {what} {value:e} is beyond f16's largest value, {}", f16::MAX))
        }
        (false, false) => Err(format!("the {what} is {value}")),
    }
}

/// Position of the first NaN or infinity.
#[inline]
pub(super) fn first_non_finite(values: &[f32]) -> Option<usize> {
    match magnitude_bits(values) < f32::INFINITY.to_bits() as i32 {
        true => None,
        false => values.iter().position(|value| !value.is_finite()),
    }
}

/// Bits of the largest magnitude. Those of NaN and infinity exceed all others.
#[inline]
fn magnitude_bits(values: &[f32]) -> i32 {
    values.iter().fold(0, |bits, value| bits.max((value.to_bits() & 0x7fff_ffff) as i32))
}

/// int4 without offset, as ggml makes Q4_0. The value of largest magnitude becomes q = 0, which is
/// −8 steps, so that the whole range −8..=7 is used. Values of the other sign have an error of up
/// to one step where +8 would be nearest. All others have an error of up to half a step.
///
/// A scale below f16's smallest value becomes 0, and so do the weights (all below 2.4e-7).
///
/// Here and below, `q` gets the integers in stored form.
pub(super) fn symmetric_int4(values: &[f32], q: &mut [u8]) -> Result<Rounded, String> {
    let largest = magnitude_bits(values) as u32;
    let extreme = values
        .iter()
        .find(|value| value.to_bits() & 0x7fff_ffff == largest)
        .copied()
        .unwrap_or(0.0);
    let scale = step("scale", extreme / -8.0)?;
    let inverse = inverse(scale);
    round_all(values, q, |value| ((value * inverse + 8.5) as i32).clamp(0, 15));
    Ok(Rounded { scale, offset: f16::ZERO })
}

/// int8 without offset. The largest magnitude becomes ±127 steps, and every value has an error of
/// up to half a step.
pub(super) fn symmetric_int8(values: &[f32], q: &mut [u8]) -> Result<Rounded, String> {
    let scale = step("scale", f32::from_bits(magnitude_bits(values) as u32) / 127.0)?;
    let inverse = inverse(scale);
    // The bias makes truncation round halves up. `as` saturates.
    round_all(values, q, |value| ((value * inverse + 128.5) as i32 - 128).clamp(-127, 127));
    Ok(Rounded { scale, offset: f16::ZERO })
}

/// Integers with an offset. The steps cover the range of the first `real` values, of which there is
/// at least one. Each has an error of up to half a step plus the offset's rounding to f16. The rest
/// are padding and get the nearest step.
pub(super) fn affine(
    values: &[f32],
    real: usize,
    bits: u8,
    q: &mut [u8],
) -> Result<Rounded, String> {
    let (lowest, highest) = if bits == 4 { (0, 15) } else { (-128, 127) };
    let limits = (f32::INFINITY, f32::NEG_INFINITY);
    let (min, max) =
        values[..real].iter().fold(limits, |(min, max), &value| (min.min(value), max.max(value)));
    let exact_scale = (max - min) / (highest - lowest) as f32;
    let scale = step("scale", exact_scale)?;
    let offset = step("offset", min - exact_scale * lowest as f32)?;
    let (inverse, zero) = (inverse(scale), offset.to_f32());
    // Biased by 0.5 − lowest, so that truncation rounds halves up on the whole range.
    let bias = 0.5 - lowest as f32;
    round_all(values, q, |value| {
        (((value - zero) * inverse + bias) as i32 + lowest).clamp(lowest, highest)
    });
    Ok(Rounded { scale, offset })
}

/// [`finite_f16`] without negative zero.
fn step(what: &str, value: f32) -> Result<f16, String> {
    let step = finite_f16(what, value)?;
    Ok(if step == f16::ZERO { f16::ZERO } else { step })
}

/// 1/scale, or 0 where the scale is 0. Every value then gets the q of weight 0 (or of the offset).
fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO { 0.0 } else { scale.to_f32().recip() }
}

#[inline]
fn round_all(values: &[f32], q: &mut [u8], round: impl Fn(f32) -> i32) {
    for (q, &value) in q.iter_mut().zip(values) {
        *q = round(value) as u8;
    }
}
