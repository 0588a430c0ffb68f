use rayon::prelude::*;

use crate::cpu::ops::dot;
use crate::cpu::ops::norm::norm_row;
use crate::cpu::weight_rows::WeightRows;

/// Results of a task.
const TASK_FEATURES: usize = 64;

/// The inputs of experts and router: `experts = rms(x)·pre_norm` and
/// `routed = rms(x)·scale·n^(−1/2)`.
///
/// `x`, `experts`, `routed`: `[rows, n]`; `pre_norm`, `scale`: `[n]`.
pub fn expert_inputs(
    x: &[f32],
    pre_norm: &[f32],
    scale: &[f32],
    eps: f32,
    experts: &mut [f32],
    routed: &mut [f32],
) {
    let n = pre_norm.len();
    let factor = (n as f32).powf(-0.5);
    experts.copy_from_slice(x);
    experts.chunks_exact_mut(n).for_each(|row| norm_row(row, Some(pre_norm), eps));
    routed.copy_from_slice(x);
    for row in routed.chunks_exact_mut(n) {
        norm_row(row, Some(scale), eps);
        row.iter_mut().for_each(|value| *value *= factor);
    }
}

/// The `top_k` experts of each row with the largest logits, the largest first. Of equal ones the
/// first counts. Their weights are the softmax over their logits, times their scale.
///
/// `logits`: `[rows, experts]`; `scales`: `[experts]`; results: `[rows, top_k]`.
pub fn route(logits: &[f32], scales: &[f32], top_k: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut chosen, mut weights) = (Vec::new(), Vec::new());
    for logits in logits.chunks_exact(scales.len()) {
        let mut order: Vec<u32> = (0..scales.len() as u32).collect();
        // A stable sort keeps the order of equal logits.
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        order.truncate(top_k);
        let largest = logits[order[0] as usize];
        let terms: Vec<f32> =
            order.iter().map(|&expert| (logits[expert as usize] - largest).exp()).collect();
        let sum: f32 = terms.iter().sum();
        weights.extend(order.iter().zip(&terms).map(|(&e, term)| term / sum * scales[e as usize]));
        chosen.extend(order);
    }
    (chosen, weights)
}

/// The product of each pair of a row and a chosen expert. Activations stay f32.
///
/// `weights`: `[experts · features, n]`; `x`: `[rows, n]`, of which pair p takes row p / `share`;
/// `chosen`: `[pairs]`; `out`: `[pairs, features]`.
pub fn experts_matmul(
    weights: &impl WeightRows,
    features: usize,
    x: &[f32],
    share: usize,
    chosen: &[u32],
    out: &mut [f32],
) {
    let n = weights.in_features();
    assert_eq!(out.len(), chosen.len() * features);
    let first_row = |pair: usize| chosen[pair] as usize * features;
    out.par_chunks_mut(features).enumerate().for_each(|(pair, out)| {
        let x = &x[pair / share * n..][..n];
        let blocks = out.par_chunks_mut(TASK_FEATURES).enumerate();
        blocks.for_each_init(
            || vec![0.0; n],
            |row, (block, out)| {
                for (i, out) in out.iter_mut().enumerate() {
                    weights.dequantize_row(first_row(pair) + block * TASK_FEATURES + i, row);
                    *out = dot(row, x);
                }
            },
        );
    });
}

/// `hidden = gelu(gate) · up`. `gate_up`: `[pairs, 2, n]`; `hidden`: `[pairs, n]`.
pub fn gelu_mul_pairs(gate_up: &[f32], n: usize, hidden: &mut [f32]) {
    for (gate_up, hidden) in gate_up.chunks_exact(2 * n).zip(hidden.chunks_exact_mut(n)) {
        let (gate, up) = gate_up.split_at(n);
        hidden.copy_from_slice(gate);
        super::gelu_mul(hidden, up);
    }
}

/// `out[row] = Σ weight · result` over a row's pairs.
///
/// `weights`: `[rows, top_k]`; `results`: `[rows, top_k, n]`; `out`: `[rows, n]`.
pub fn sum_experts(weights: &[f32], results: &[f32], n: usize, out: &mut [f32]) {
    let top_k = weights.len() * n / out.len().max(1);
    out.fill(0.0);
    for (pair, (weight, result)) in weights.iter().zip(results.chunks_exact(n)).enumerate() {
        let out = &mut out[pair / top_k * n..][..n];
        out.iter_mut().zip(result).for_each(|(out, value)| *out += weight * value);
    }
}

/// The outputs of MLP and experts together: `mlp = rms(mlp)·mlp_norm + rms(experts)·experts_norm`.
///
/// `mlp`, `experts`: `[rows, n]`; the weights: `[n]`.
pub fn join_experts(
    mlp: &mut [f32],
    experts: &mut [f32],
    mlp_norm: &[f32],
    experts_norm: &[f32],
    eps: f32,
) {
    let n = mlp_norm.len();
    for (mlp, experts) in mlp.chunks_exact_mut(n).zip(experts.chunks_exact_mut(n)) {
        norm_row(mlp, Some(mlp_norm), eps);
        norm_row(experts, Some(experts_norm), eps);
        mlp.iter_mut().zip(experts).for_each(|(mlp, expert)| *mlp += *expert);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuMatrix;
    use crate::cpu::ops::testing::{assert_close, random};
    use crate::quant::{self, Dtype, PackFormat};

    #[test]
    fn the_router_softmaxes_over_the_chosen() {
        let logits = [0.5, 2.0, -1.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let scales = [1.0, 2.0, 3.0, 0.5, 4.0];
        let (chosen, weights) = route(&logits, &scales, 3);
        assert_eq!(chosen, [1, 3, 4, 0, 1, 2]);
        let e = (-1f64).exp();
        let third = 1.0 / 3.0;
        let expected = [2.0 / (2.0 + e), 0.5 / (2.0 + e), 4.0 * e / (2.0 + e)];
        assert_close(&weights[..3], &expected, 1e-6);
        assert_close(&weights[3..], &[third, 2.0 * third, 3.0 * third], 1e-6);
    }

    #[test]
    fn the_inputs_share_one_norm() {
        let (n, eps) = (6, 0.1);
        let (x, pre, scale) = (random(2 * n, 1), random(n, 2), random(n, 3));
        let (mut experts, mut routed) = (vec![0.0; 2 * n], vec![0.0; 2 * n]);
        expert_inputs(&x, &pre, &scale, eps, &mut experts, &mut routed);
        for row in 0..2 {
            let x: Vec<f64> = x[row * n..][..n].iter().map(|&x| x as f64).collect();
            let mean = x.iter().map(|x| x * x).sum::<f64>() / n as f64;
            let normed: Vec<f64> = x.iter().map(|x| x / (mean + eps as f64).sqrt()).collect();
            let times = |w: &[f32], factor: f64| -> Vec<f64> {
                normed.iter().zip(w).map(|(x, &w)| x * w as f64 * factor).collect()
            };
            assert_close(&experts[row * n..][..n], &times(&pre, 1.0), 1e-6);
            assert_close(&routed[row * n..][..n], &times(&scale, (n as f64).powf(-0.5)), 1e-6);
        }
    }

    #[test]
    fn each_pair_is_multiplied_by_its_expert() {
        let (experts, features, n, share) = (3, 70, 33, 2);
        let values = random(experts * features * n, 4);
        let bytes = bytemuck::cast_slice(&values);
        let packed =
            quant::pack_rows(Dtype::F32, bytes, experts * features, n, PackFormat::F32).unwrap();
        let (x, chosen) = (random(2 * n, 5), [2, 0, 1, 2]);
        let mut out = vec![0.0; chosen.len() * features];
        experts_matmul(&CpuMatrix::new(packed), features, &x, share, &chosen, &mut out);
        let expected: Vec<f64> = (0..out.len())
            .map(|at| {
                let (pair, feature) = (at / features, at % features);
                let row = &values[(chosen[pair] as usize * features + feature) * n..][..n];
                let x = &x[pair / share * n..][..n];
                row.iter().zip(x).map(|(&w, &x)| w as f64 * x as f64).sum()
            })
            .collect();
        assert_close(&out, &expected, 1e-5);
    }

    #[test]
    fn pairs_are_summed_by_row_and_joined() {
        let mut out = [9.0; 4];
        let results = [1.0, 2.0, 10.0, 20.0, 3.0, 4.0, 5.0, 6.0];
        sum_experts(&[1.0, 0.5, 2.0, -1.0], &results, 2, &mut out);
        assert_eq!(out, [6.0, 12.0, 1.0, 2.0]);
        let (mut mlp, mut experts) = ([3.0, 3.0], [4.0, -4.0]);
        join_experts(&mut mlp, &mut experts, &[1.0, 2.0], &[0.5, 0.25], 0.0);
        assert_close(&mlp, &[1.5, 1.75], 1e-6);
        let mut hidden = [0.0; 2];
        gelu_mul_pairs(&[30.0, -30.0, 2.0, 2.0], 2, &mut hidden);
        assert_close(&hidden, &[60.0, 0.0], 1e-4);
    }
}
