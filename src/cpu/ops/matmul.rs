use rayon::prelude::*;

use crate::cpu::matrix::CpuMatrix;
use crate::cpu::ops::dot;
use crate::cpu::ops::quantize::{QUANTIZE_GROUP, QuantizedRows};
use crate::cpu::weight_rows::WeightRows;

/// Fewest multiplications for which a task is worth a thread.
const TASK_MULTIPLICATIONS: usize = 1 << 15;

/// `x` `[rows, in_features]` times the transpose of `weights` `[out_features, in_features]`, into
/// `out` `[rows, out_features]`. Activations stay f32. Weights have the values of their packed
/// form.
pub fn matmul(weights: &impl WeightRows, x: &[f32], out: &mut [f32]) {
    let (n_in, n_out) = (weights.in_features(), weights.out_features());
    let rows = x.len() / n_in;
    assert_eq!((x.len(), out.len()), (rows * n_in, rows * n_out));
    for_each_feature(rows, n_in, n_out, out, |feature, weight_row, out| {
        weights.dequantize_row(feature, weight_row);
        for (x, out) in x.chunks_exact(n_in).zip(out) {
            *out = dot(weight_row, x);
        }
    });
}

/// [`matmul`] with int8 activations: twin of the kernels that use integer dot products.
///
/// Each group's integer products are summed exactly. The scales of weight and activation come
/// after: `Σ_groups scale_x · (scale_w · Σ q·x + offset_w · Σ x)`.
///
/// # Panics
/// If the weights are not integers.
pub fn matmul_q8(weights: &CpuMatrix, x: &QuantizedRows, out: &mut [f32]) {
    let (n_in, n_out) = (weights.in_features(), weights.out_features());
    assert_eq!((x.cols, out.len()), (n_in, x.rows * n_out));
    let columns = weights.packed().format.group().expect("integers");
    for_each_feature(x.rows, n_in, n_out, out, |feature, _, out| {
        out.fill(0.0);
        weights.packed().for_each_group(feature, |group, q, scale, offset| {
            let start = group * columns;
            for (row, out) in out.iter_mut().enumerate() {
                let first = row * x.groups * QUANTIZE_GROUP + start;
                // Activations have a scale for each 32 columns. A group may have only a part of
                // them.
                for (at, q) in (first..).step_by(QUANTIZE_GROUP).zip(q.chunks(QUANTIZE_GROUP)) {
                    let values = &x.values[at..][..q.len()];
                    let product: i32 =
                        q.iter().zip(values).map(|(&q, &x)| q as i32 * x as i32).sum();
                    let sum: i32 = values.iter().map(|&x| x as i32).sum();
                    *out += x.scales[at / QUANTIZE_GROUP]
                        * (scale * product as f32 + offset * sum as f32);
                }
            }
        });
    });
}

/// Calls `compute(feature, buffer [n_in], column [rows])` for every output feature, in parallel.
/// Stores the columns in `out` `[rows, n_out]`.
fn for_each_feature(
    rows: usize,
    n_in: usize,
    n_out: usize,
    out: &mut [f32],
    compute: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    if rows == 0 {
        return;
    }
    let features_per_task = (TASK_MULTIPLICATIONS / (rows * n_in).max(1)).max(1);
    let run = |columns: &mut [f32]| {
        let tasks = columns.par_chunks_mut(features_per_task * rows).enumerate();
        tasks.for_each_init(
            || vec![0.0; n_in],
            |scratch, (task, columns)| {
                for (i, column) in columns.chunks_exact_mut(rows).enumerate() {
                    compute(task * features_per_task + i, scratch, column);
                }
            },
        );
    };
    if rows == 1 {
        return run(out);
    }
    let mut columns = vec![0.0; n_out * rows]; // [n_out, rows]
    run(&mut columns);
    out.par_chunks_exact_mut(n_out).enumerate().for_each(|(row, out)| {
        for (out, column) in out.iter_mut().zip(columns.chunks_exact(rows)) {
            *out = column[row];
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::ops::{
            quantize::quantize_rows,
            testing::{assert_close, random},
        },
        quant::{self, Dtype, PackFormat},
    };

    fn matrix(format: PackFormat, rows: usize, cols: usize) -> CpuMatrix {
        let values = random(rows * cols, 7);
        CpuMatrix::new(
            quant::pack_rows(Dtype::F32, bytemuck::cast_slice(&values), rows, cols, format)
                .unwrap(),
        )
    }

    fn formula(weights: &CpuMatrix, x: &[f64]) -> Vec<f64> {
        let (n_in, n_out) = (weights.in_features(), weights.out_features());
        let mut row = vec![0.0; n_in];
        let mut out = vec![0.0; x.len() / n_in * n_out];
        for feature in 0..n_out {
            weights.dequantize_row(feature, &mut row);
            for (i, x) in x.chunks_exact(n_in).enumerate() {
                out[i * n_out + feature] = row.iter().zip(x).map(|(&w, x)| w as f64 * x).sum();
            }
        }
        out
    }

    const INTEGERS: [PackFormat; 7] = [
        PackFormat::INT4,
        PackFormat::INT8,
        PackFormat::Int { bits: 4, group: 32, offset: true },
        PackFormat::Int { bits: 8, group: 32, offset: true },
        PackFormat::Int { bits: 8, group: 16, offset: false },
        PackFormat::Int { bits: 4, group: 64, offset: true },
        PackFormat::Int { bits: 8, group: 128, offset: false },
    ];

    #[test]
    fn matmul_follows_the_formula() {
        for format in INTEGERS.into_iter().chain([PackFormat::F32]) {
            for (rows, n_in, n_out) in [(1, 40, 3), (3, 33, 70), (2, 300, 129)] {
                let weights = matrix(format, n_out, n_in);
                let x = random(rows * n_in, 8);
                let mut out = vec![f32::NAN; rows * n_out];
                matmul(&weights, &x, &mut out);
                let x: Vec<f64> = x.iter().map(|&x| x as f64).collect();
                assert_close(&out, &formula(&weights, &x), 2e-5);
            }
        }
    }

    /// Equals the product with the quantized activations in exact arithmetic.
    #[test]
    fn matmul_q8_follows_the_formula() {
        for format in INTEGERS {
            for (rows, n_in, n_out) in [(1, 32, 2), (3, 70, 33)] {
                let weights = matrix(format, n_out, n_in);
                let x = quantize_rows(&random(rows * n_in, 9), n_in);
                let mut out = vec![f32::NAN; rows * n_out];
                matmul_q8(&weights, &x, &mut out);
                let padded = x.groups * QUANTIZE_GROUP;
                let exact: Vec<f64> = (0..rows * n_in)
                    .map(|i| i / n_in * padded + i % n_in)
                    .map(|i| x.values[i] as f64 * x.scales[i / QUANTIZE_GROUP] as f64)
                    .collect();
                assert_close(&out, &formula(&weights, &exact), 2e-5);
            }
        }
    }

    #[test]
    fn no_rows_give_no_output() {
        matmul(&matrix(PackFormat::F32, 4, 8), &[], &mut []);
    }
}
