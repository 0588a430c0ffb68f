//! The two ways to compute an operation: the reference and the fast path.

use crate::cpu::matrix::CpuMatrix;
use crate::cpu::options::Instructions;
use crate::cpu::simd::InstructionSet;
use crate::cpu::{ops, products};

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
    pub fn matmuls(&self, weights: &[&CpuMatrix], x: &[f32]) -> Vec<Vec<f32>> {
        let exact = |weights: &&CpuMatrix| {
            let mut out = vec![0.0; x.len() / weights.in_features() * weights.out_features()];
            ops::matmul(weights, x, &mut out);
            out
        };
        match self {
            Path::Exact => weights.iter().map(exact).collect(),
            Path::Fast(_, set) => products::multiply(&**set, weights, x),
        }
    }

    /// [`Path::matmuls`] of one matrix.
    pub fn matmul(&self, weights: &CpuMatrix, x: &[f32]) -> Vec<f32> {
        self.matmuls(&[weights], x).pop().unwrap_or_default()
    }

    /// [`ops::gelu_mul`].
    pub fn gelu_mul(&self, gate: &mut [f32], up: &[f32]) {
        match self {
            Path::Exact => ops::gelu_mul(gate, up),
            Path::Fast(_, set) => set.gelu_mul(gate, up),
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
