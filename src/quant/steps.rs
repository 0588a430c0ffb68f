//! Levels of a group, and the scale and offset that give them values.

use half::f16;

use crate::quant::round;

/// The integers that a format has.
#[derive(Clone, Copy)]
pub(super) struct Levels {
    pub lowest: i32,
    pub highest: i32,
    /// The number that the stored integer adds to the level.
    pub stored_zero: i32,
}

impl Levels {
    pub fn of(bits: u8, symmetric: bool) -> Levels {
        match (bits, symmetric) {
            (4, true) => Levels { lowest: -8, highest: 7, stored_zero: 8 },
            (4, false) => Levels { lowest: 0, highest: 15, stored_zero: 0 },
            (_, true) => Levels { lowest: -127, highest: 127, stored_zero: 0 },
            (_, false) => Levels { lowest: -128, highest: 127, stored_zero: 0 },
        }
    }

    pub fn steps(self, scale: f32, offset: f32) -> Result<Steps, String> {
        let scale = round::finite_f16("scale", scale)?;
        let scale = if scale == f16::ZERO { f16::ZERO } else { scale };
        let inverse = if scale == f16::ZERO { 0.0 } else { scale.to_f32().recip() };
        let offset = round::finite_f16("offset", offset)?;
        Ok(Steps {
            levels: self,
            scale,
            offset,
            inverse,
            step: scale.to_f32(),
            zero: offset.to_f32(),
        })
    }

    /// Steps from the bits of a scale and, in the high half, an offset. `None` if one is not
    /// finite.
    pub fn stored(self, word: u32) -> Option<Steps> {
        let [scale, offset] =
            [word as u16, (word >> 16) as u16].map(|bits| f16::from_bits(bits).to_f32());
        self.steps(scale, offset).ok()
    }

    /// The scale with which the largest magnitude becomes the lowest level (of int8: ±127).
    pub fn symmetric_scale(self, values: &[f32]) -> f32 {
        let extreme = values
            .iter()
            .fold(0f32, |most, value| if value.abs() > most.abs() { *value } else { most });
        if self.lowest == -8 { extreme / -8.0 } else { extreme.abs() / 127.0 }
    }

    /// Steps from the smallest value to the largest.
    pub fn of_range(self, (min, max): (f32, f32)) -> Result<Steps, String> {
        let scale = (max - min) / (self.highest - self.lowest) as f32;
        self.steps(scale, min - scale * self.lowest as f32)
    }
}

/// The smallest and the largest value.
pub(super) fn range(values: &[f32]) -> (f32, f32) {
    let limits = (f32::INFINITY, f32::NEG_INFINITY);
    values.iter().fold(limits, |(min, max), &value| (min.min(value), max.max(value)))
}

/// A scale and an offset, as they are stored.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub levels: Levels,
    pub scale: f16,
    pub offset: f16,
    pub inverse: f32,
    pub step: f32,
    pub zero: f32,
}

impl Steps {
    /// The nearest level.
    #[inline]
    pub fn level(&self, value: f32) -> i32 {
        let bias = 0.5 - self.levels.lowest as f32;
        let steps = ((value - self.zero) * self.inverse + bias) as i32 + self.levels.lowest;
        steps.clamp(self.levels.lowest, self.levels.highest)
    }

    /// The nearest level as it is stored.
    pub fn integer(&self, value: f32) -> i32 {
        self.level(value) + self.levels.stored_zero
    }

    pub fn value(&self, level: i32) -> f32 {
        self.step * level as f32 + self.zero
    }
}
