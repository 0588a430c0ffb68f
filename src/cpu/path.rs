//! The two ways to compute an operation: the reference and the fast path.

use rayon::prelude::*;

use crate::cpu::instructions::Instructions;
use crate::cpu::matrix::StoredMatrix;
use crate::cpu::ops::{self, Attention};
use crate::cpu::simd::InstructionSet;
use crate::cpu::weight_rows::WeightRows;
use crate::cpu::{KvCache, attention, products};

/// Elements for which a task is worth a thread.
const TASK_ELEMENTS: usize = 1 << 14;

/// Elements of a task that has whole rows of `columns`.
fn whole_rows(columns: usize) -> usize {
    TASK_ELEMENTS.div_ceil(columns) * columns
}

/// How a backend computes.
pub(super) enum Path {
    /// With [`ops`]: activations stay f32.
    Exact,
    /// With int8 activations and the instructions of the processor.
    Fast(Instructions, Box<dyn InstructionSet>),
}

impl Path {
    /// The reference, or the instructions of the fast path.
    pub fn name(&self) -> &'static str {
        match self {
            Path::Exact => "exact",
            Path::Fast(instructions, _) => instructions.name(),
        }
    }

    /// `x` `[rows, in_features]` times the transpose of each matrix, all with the same
    /// `in_features`. The results are `[rows, out_features]`.
    pub fn matmuls(&self, weights: &[&StoredMatrix], x: &[f32]) -> Vec<Vec<f32>> {
        let exact = |weights: &&StoredMatrix| {
            let mut out = vec![0.0; x.len() / weights.in_features() * weights.out_features()];
            ops::matmul(*weights, x, &mut out);
            out
        };
        match self {
            Path::Exact => weights.iter().map(exact).collect(),
            Path::Fast(_, set) => products::multiply(&**set, weights, x),
        }
    }

    /// [`Path::matmuls`] of one matrix.
    pub fn matmul(&self, weights: &StoredMatrix, x: &[f32]) -> Vec<f32> {
        self.matmuls(&[weights], x).pop().unwrap_or_default()
    }

    /// [`ops::experts_matmul`], which returns its results. Neither way rounds activations.
    pub fn experts_matmul(
        &self,
        weights: &StoredMatrix,
        features: usize,
        x: &[f32],
        share: usize,
        chosen: &[u32],
    ) -> Vec<f32> {
        match self {
            Path::Exact => {
                let mut out = vec![0.0; chosen.len() * features];
                ops::experts_matmul(weights, features, x, share, chosen, &mut out);
                out
            }
            Path::Fast(_, set) => {
                products::multiply_experts(&**set, weights, features, x, share, chosen)
            }
        }
    }

    /// [`ops::gelu_mul`].
    pub fn gelu_mul(&self, gate: &mut [f32], up: &[f32]) {
        match self {
            Path::Exact => ops::gelu_mul(gate, up),
            Path::Fast(_, set) => {
                let gates = gate.par_chunks_mut(TASK_ELEMENTS);
                gates.zip(up.par_chunks(TASK_ELEMENTS)).for_each(|(gate, up)| {
                    set.gelu_mul(gate, up);
                });
            }
        }
    }

    /// [`ops::add_rms_norm`], with the rows divided among the cores.
    #[expect(clippy::too_many_arguments)]
    pub fn add_rms_norm(
        &self,
        x: &mut [f32],
        branch: &[f32],
        post_weight: &[f32],
        scalar: f32,
        next_weight: &[f32],
        eps: f32,
        out: &mut [f32],
    ) {
        let elements = whole_rows(post_weight.len());
        let rows = x.par_chunks_mut(elements).zip(branch.par_chunks(elements));
        rows.zip(out.par_chunks_mut(elements)).for_each(|((x, branch), out)| {
            ops::add_rms_norm(x, branch, post_weight, scalar, next_weight, eps, out);
        });
    }

    /// [`ops::qk_norm_rope`], with the rows divided among the cores.
    pub fn qk_norm_rope(
        &self,
        x: &mut [f32],
        heads: usize,
        norm_weight: &[f32],
        eps: f32,
        inverse_frequencies: &[f32],
        first_position: usize,
    ) {
        let columns = heads * norm_weight.len();
        let elements = whole_rows(columns);
        x.par_chunks_mut(elements).enumerate().for_each(|(task, x)| {
            let position = first_position + task * (elements / columns);
            ops::qk_norm_rope(x, heads, norm_weight, eps, inverse_frequencies, position);
        });
    }

    /// [`ops::sdpa`].
    pub fn sdpa(
        &self,
        q: &[f32],
        cache: &KvCache,
        first_position: usize,
        attention: Attention,
        out: &mut [f32],
    ) {
        match self {
            Path::Exact => ops::sdpa(q, cache, first_position, attention, out),
            Path::Fast(_, set) => {
                attention::sdpa(&**set, q, cache, first_position, attention, out);
            }
        }
    }

    /// [`ops::softcap`].
    pub fn softcap(&self, logits: &mut [f32], cap: f32) {
        match self {
            Path::Exact => ops::softcap(logits, cap),
            Path::Fast(_, set) => set.softcap(logits, cap),
        }
    }
}
