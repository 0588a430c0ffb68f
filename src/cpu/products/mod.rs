//! Products of matrices on the fast path.

use rayon::prelude::*;

pub use experts::multiply_experts;

use crate::cpu::matrix::CpuMatrix;
use crate::cpu::simd::{Activations, FEATURES, InstructionSet, PackedRow, Tile, UnpackedRow};

/// Fewest multiplications for which a task is worth a thread.
const TASK_MULTIPLICATIONS: usize = 1 << 18;

/// Rows of activations that a task rounds to int8.
const QUANTIZED_ROWS: usize = 16;

/// Most rows of activations for which rows of weights are read one by one. From more on, laying
/// them out in tiles pays.
const MOST_ROWS_WITHOUT_TILES: usize = 5;

/// `x` `[rows, in_features]` times the transpose of each matrix. The matrices have the same
/// `in_features`, and the results are `[rows, out_features]`.
///
/// Activations are rounded to int8 for integer weights. Every row of weights is read once for all
/// rows of activations.
pub fn multiply(set: &dyn InstructionSet, weights: &[&CpuMatrix], x: &[f32]) -> Vec<Vec<f32>> {
    let Some(cols) = weights.first().map(|weights| weights.in_features()) else {
        return Vec::new();
    };
    let rows = x.len() / cols;
    let is_integer = |weights: &&CpuMatrix| weights.packed().format.group().is_some();
    let quantized = match weights.iter().any(is_integer) {
        true => quantize(set, x, cols),
        false => Activations::new(0, cols),
    };
    let product = |weights: &&CpuMatrix| {
        let job = Product { set, weights, x, quantized: &quantized, rows };
        job.compute()
    };
    weights.iter().map(product).collect()
}

/// Rows `[rows, cols]` as int8.
fn quantize(set: &dyn InstructionSet, x: &[f32], cols: usize) -> Activations {
    let blocks = x.par_chunks(cols * QUANTIZED_ROWS);
    let mut blocks: Vec<_> = blocks.map(|x| set.quantize(x, cols)).collect();
    match blocks.len() {
        1 => blocks.remove(0),
        _ => Activations::concat(&blocks, cols),
    }
}

struct Product<'a> {
    set: &'a dyn InstructionSet,
    weights: &'a CpuMatrix,
    x: &'a [f32],
    quantized: &'a Activations,
    rows: usize,
}

/// Memory of a task.
struct Scratch {
    row: UnpackedRow,
    tile: Tile,
    floats: Vec<f32>,
}

impl Product<'_> {
    fn compute(&self) -> Vec<f32> {
        let (rows, cols) = (self.rows, self.weights.in_features());
        let features = self.weights.out_features();
        if rows == 0 {
            return Vec::new();
        }
        // Tasks write blocks `[rows, FEATURES]`. Those of one row are already in order.
        let block = rows * FEATURES;
        let mut blocks = vec![0.0; features.next_multiple_of(FEATURES) * rows];
        let blocks_per_task = (TASK_MULTIPLICATIONS / (block * cols)).max(1);
        let run = |scratch: &mut Scratch, (task, blocks): (usize, &mut [f32])| {
            for (i, out) in blocks.chunks_exact_mut(block).enumerate() {
                let first = (task * blocks_per_task + i) * FEATURES;
                self.block(first, features.min(first + FEATURES) - first, scratch, out);
            }
        };
        let tasks = blocks.par_chunks_mut(blocks_per_task * block).enumerate();
        tasks.for_each_init(|| self.scratch(), run);
        if rows == 1 {
            blocks.truncate(features);
            return blocks;
        }
        let mut out = vec![0.0; rows * features];
        out.par_chunks_exact_mut(features).enumerate().for_each(|(row, out)| {
            let blocks = blocks.chunks_exact(block).map(|block| &block[row * FEATURES..]);
            for (out, block) in out.chunks_mut(FEATURES).zip(blocks) {
                out.copy_from_slice(&block[..out.len()]);
            }
        });
        out
    }

    fn scratch(&self) -> Scratch {
        let (cols, format) = (self.weights.in_features(), self.weights.packed().format);
        let is_integer = format.group().is_some();
        let groups = if is_integer { self.quantized.groups } else { 0 };
        Scratch {
            row: UnpackedRow::new(groups),
            tile: Tile::new(if self.rows > MOST_ROWS_WITHOUT_TILES { groups } else { 0 }),
            floats: vec![0.0; if is_integer { 0 } else { cols }],
        }
    }

    /// `count` features from `first` on, into `out` `[rows, FEATURES]`.
    fn block(&self, first: usize, count: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let Scratch { row, tile, floats } = scratch;
        let (set, x) = (self.set, self.quantized);
        if self.weights.packed().format.group().is_none() {
            for i in 0..count {
                self.weights.dequantize_row(first + i, floats);
                set.row_f32(floats, self.x, &mut out[i..], FEATURES);
            }
        } else if self.rows > MOST_ROWS_WITHOUT_TILES && count == FEATURES {
            for i in 0..FEATURES {
                set.fill(self.packed_row(first + i), row, tile, i);
            }
            set.tile(tile, x, out);
        } else {
            for i in 0..count {
                set.row(self.packed_row(first + i), x, row, &mut out[i..], FEATURES);
            }
        }
    }

    fn packed_row(&self, feature: usize) -> PackedRow<'_> {
        let packed = self.weights.packed();
        let (data, scales) =
            (packed.format.data_words(packed.cols), packed.format.scale_words(packed.cols));
        PackedRow {
            format: packed.format,
            data: &packed.data[feature * data..][..data],
            scales: &packed.scales[feature * scales..][..scales],
        }
    }
}

mod experts;
#[cfg(test)]
mod tests;
