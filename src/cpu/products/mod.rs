//! Products of matrices on the fast path.

mod experts;

use std::cell::RefCell;

use rayon::prelude::*;

pub use experts::multiply_experts;

use crate::cpu::matrix::StoredMatrix;
use crate::cpu::simd::{Activations, FEATURES, InstructionSet, TileScratch};
use crate::cpu::weight_rows::WeightRows;

/// Fewest multiplications for which a task is worth a thread.
const TASK_MULTIPLICATIONS: usize = 1 << 18;

/// Rows of activations that a task rounds to int8.
const QUANTIZED_ROWS: usize = 16;

thread_local! {
    /// Memory that the tasks of a thread reuse.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    tile: TileScratch,
    row: Vec<f32>,
}

/// `x` `[rows, in_features]` times the transpose of each matrix. The matrices have the same
/// `in_features`, and the results are `[rows, out_features]`.
///
/// Activations are rounded to int8 for integer weights. Every row of weights is read once for all
/// rows of activations.
pub fn multiply(set: &dyn InstructionSet, weights: &[&StoredMatrix], x: &[f32]) -> Vec<Vec<f32>> {
    let Some(cols) = weights.first().map(|weights| weights.in_features()) else {
        return Vec::new();
    };
    let rows = x.len() / cols;
    if rows == 0 {
        return vec![Vec::new(); weights.len()];
    }
    let quantized = match weights.iter().any(|weights| matches!(weights, StoredMatrix::Tiles(_))) {
        true => quantize(set, x, cols),
        false => Activations::new(0, cols),
    };
    // Tasks write blocks `[rows, FEATURES]`. Those of one row are already in order.
    let block = rows * FEATURES;
    let zeros = |weights: &&StoredMatrix| {
        vec![0.0; weights.out_features().next_multiple_of(FEATURES) * rows]
    };
    let mut products: Vec<Vec<f32>> = weights.iter().map(zeros).collect();
    let blocks_per_task = (TASK_MULTIPLICATIONS / (block * cols)).max(1);
    let mut tasks = Vec::new();
    for (weights, blocks) in weights.iter().zip(&mut products) {
        let blocks = blocks.chunks_mut(blocks_per_task * block).enumerate();
        let task = |(task, out)| Task { weights, first: task * blocks_per_task, out };
        tasks.extend(blocks.map(task));
    }
    let input = Input { set, x, quantized: &quantized };
    tasks.into_par_iter().for_each(|task| task.run(&input, block));
    for (weights, product) in weights.iter().zip(&mut products) {
        let features = weights.out_features();
        match rows {
            1 => product.truncate(features),
            _ => *product = in_rows(product, rows, features),
        }
    }
    products
}

/// Rows `[rows, cols]` as int8.
fn quantize(set: &dyn InstructionSet, x: &[f32], cols: usize) -> Activations {
    if x.len() <= cols * QUANTIZED_ROWS {
        return set.quantize(x, cols);
    }
    let blocks = x.par_chunks(cols * QUANTIZED_ROWS);
    let blocks: Vec<_> = blocks.map(|x| set.quantize(x, cols)).collect();
    Activations::concat(&blocks, cols)
}

/// `[rows, features]` of blocks `[rows, FEATURES]`.
fn in_rows(blocks: &[f32], rows: usize, features: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * features];
    out.par_chunks_exact_mut(features).enumerate().for_each(|(row, out)| {
        let blocks = blocks.chunks_exact(rows * FEATURES).map(|block| &block[row * FEATURES..]);
        for (out, block) in out.chunks_mut(FEATURES).zip(blocks) {
            out.copy_from_slice(&block[..out.len()]);
        }
    });
    out
}

/// The activations that a step's tasks share.
struct Input<'a> {
    set: &'a dyn InstructionSet,
    x: &'a [f32],
    quantized: &'a Activations,
}

/// Consecutive blocks of a product.
struct Task<'a> {
    weights: &'a StoredMatrix,
    /// The first block.
    first: usize,
    out: &'a mut [f32],
}

impl Task<'_> {
    fn run(self, input: &Input<'_>, block: usize) {
        SCRATCH.with_borrow_mut(|scratch| {
            for (block, out) in (self.first..).zip(self.out.chunks_exact_mut(block)) {
                self.weights.block(input, block, scratch, out);
            }
        });
    }
}

impl StoredMatrix {
    /// The features of block `block` into `out` `[rows, FEATURES]`.
    fn block(&self, input: &Input<'_>, block: usize, scratch: &mut Scratch, out: &mut [f32]) {
        match self {
            StoredMatrix::Tiles(tiles) => {
                scratch.tile.reserve(input.quantized.groups);
                input.set.tile(tiles.tile(block), input.quantized, &mut scratch.tile, out);
            }
            StoredMatrix::Rows(rows) => {
                scratch.row.resize(rows.in_features(), 0.0);
                let first = block * FEATURES;
                for feature in first..rows.out_features().min(first + FEATURES) {
                    rows.dequantize_row(feature, &mut scratch.row);
                    let out = &mut out[feature - first..];
                    input.set.row_f32(&scratch.row, input.x, out, FEATURES);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
