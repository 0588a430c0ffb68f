//! Products of rows and their chosen experts on the fast path.

use rayon::prelude::*;

use crate::cpu::matrix::StoredMatrix;
use crate::cpu::simd::InstructionSet;
use crate::cpu::weight_rows::WeightRows;

/// Features of a task.
const FEATURES: usize = 32;

/// As [`crate::cpu::ops::experts_matmul`]. Activations stay f32, because int8 ones are reported to
/// ruin mixtures of experts. Each row of weights is unpacked once for all pairs of its expert.
pub fn multiply_experts(
    set: &dyn InstructionSet,
    weights: &StoredMatrix,
    features: usize,
    x: &[f32],
    share: usize,
    chosen: &[u32],
) -> Vec<f32> {
    let n = weights.in_features();
    let groups = by_expert(chosen);
    // The activations of each group's pairs, one after another.
    let gathered: Vec<Vec<f32>> = groups
        .par_iter()
        .map(|(_, pairs)| {
            pairs.iter().flat_map(|pair| &x[pair / share * n..][..n]).copied().collect()
        })
        .collect();
    let blocks = features.div_ceil(FEATURES);
    let tasks: Vec<(usize, usize)> =
        (0..groups.len()).flat_map(|group| (0..blocks).map(move |block| (group, block))).collect();
    let results: Vec<Vec<f32>> = tasks
        .par_iter()
        .map_init(
            || vec![0.0; n],
            |row, &(group, block)| {
                let count = FEATURES.min(features - block * FEATURES);
                let mut out = vec![0.0; groups[group].1.len() * count]; // [pairs, count]
                let first = groups[group].0 as usize * features + block * FEATURES;
                for i in 0..count {
                    weights.dequantize_row(first + i, row);
                    set.row_f32(row, &gathered[group], &mut out[i..], count);
                }
                out
            },
        )
        .collect();
    let mut out = vec![0.0; chosen.len() * features];
    for (&(group, block), result) in tasks.iter().zip(&results) {
        let pairs = &groups[group].1;
        for (pair, values) in pairs.iter().zip(result.chunks_exact(result.len() / pairs.len())) {
            out[pair * features + block * FEATURES..][..values.len()].copy_from_slice(values);
        }
    }
    out
}

/// The chosen experts, each with its pairs.
fn by_expert(chosen: &[u32]) -> Vec<(u32, Vec<usize>)> {
    let mut pairs: Vec<usize> = (0..chosen.len()).collect();
    pairs.sort_by_key(|&pair| chosen[pair]);
    let groups = pairs.chunk_by(|&a, &b| chosen[a] == chosen[b]);
    groups.map(|pairs| (chosen[pairs[0]], pairs.to_vec())).collect()
}
