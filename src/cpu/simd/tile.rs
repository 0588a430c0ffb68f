//! Sixteen rows of integer weights. The lanes of a vector are rows, the output features.

use crate::cpu::simd::activations::GROUP;
use crate::quant::PackFormat;

/// Features of a tile.
pub const FEATURES: usize = 16;

/// A value for each feature.
pub type Lanes<T> = [T; FEATURES];

/// Rows of packed integers. Vector i has word i of each row.
#[derive(Debug, Clone, Copy)]
pub struct PackedTile<'a> {
    pub format: PackFormat,
    /// `[data words of a row]`
    pub data: &'a [Lanes<u32>],
    /// `[scale words of a row]`
    pub scales: &'a [Lanes<u32>],
}

/// Unpacked rows: weight i is `scales[i / unit]·(q[i] − zero) + offsets[i / unit]`.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    /// Columns that share a step: 16 for formats with groups of 16, else [`GROUP`].
    pub unit: usize,
    /// Bits of q. Those of 8 bits are signed, others are not.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub bits: u8,
    pub zero: i32,
    /// Four columns of each feature: `[columns / 4]` words of four bytes.
    pub quads: &'a [Lanes<u32>],
    /// `[units]`
    pub scales: &'a [Lanes<f32>],
    /// `[units]`, or empty where all offsets are 0.
    pub offsets: &'a [Lanes<f32>],
}

/// Memory of an unpacked tile.
#[derive(Debug, Clone, Default)]
pub struct TileScratch {
    pub quads: Vec<Lanes<u32>>,
    pub scales: Vec<Lanes<f32>>,
    pub offsets: Vec<Lanes<f32>>,
}

impl TileScratch {
    /// Makes room for rows of this many groups of [`GROUP`] columns, in any format.
    pub fn reserve(&mut self, groups: usize) {
        if self.scales.len() < 2 * groups {
            self.quads.resize(groups * GROUP / 4, [0; FEATURES]);
            self.scales.resize(2 * groups, [0.0; FEATURES]);
            self.offsets.resize(2 * groups, [0.0; FEATURES]);
        }
    }
}
