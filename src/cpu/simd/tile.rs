//! Sixteen rows of weights, laid out for many rows of activations.

use crate::cpu::simd::unpack::{self, GROUP, PackedRow, UnpackedRow};

/// Features of a tile.
pub const FEATURES: usize = 16;

/// [`FEATURES`] rows of integer weights. The lanes of a vector are features.
#[derive(Debug, Clone)]
pub struct Tile {
    /// Columns that share a step, as in [`UnpackedRow`].
    pub unit: usize,
    /// Four columns of each feature: `[columns / 4, FEATURES]` words of four bytes.
    pub quads: Vec<[u32; FEATURES]>,
    /// `[units, FEATURES]`
    pub scales: Vec<[f32; FEATURES]>,
    /// `[units, FEATURES]`
    pub offsets: Vec<[f32; FEATURES]>,
}

impl Tile {
    /// Room for rows of this many groups of [`GROUP`] columns, in any format.
    pub fn new(groups: usize) -> Self {
        Tile {
            unit: GROUP,
            quads: vec![[0; FEATURES]; groups * GROUP / 4],
            scales: vec![[0.0; FEATURES]; 2 * groups],
            offsets: vec![[0.0; FEATURES]; 2 * groups],
        }
    }

    /// Unpacks a row as feature `feature`.
    #[inline(always)]
    pub fn fill(
        &mut self,
        weights: PackedRow<'_>,
        flip: u8,
        scratch: &mut UnpackedRow,
        feature: usize,
    ) {
        unpack::unpack(weights, flip, scratch);
        self.unit = scratch.unit;
        for (quad, bytes) in self.quads.iter_mut().zip(scratch.bytes.as_chunks().0) {
            quad[feature] = u32::from_ne_bytes(*bytes);
        }
        let steps = scratch.scales.iter().zip(&scratch.offsets);
        for ((scale, offset), step) in self.scales.iter_mut().zip(&mut self.offsets).zip(steps) {
            (scale[feature], offset[feature]) = (*step.0, *step.1);
        }
    }
}
