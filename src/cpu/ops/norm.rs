use crate::cpu::ops::dot;

/// x / sqrt(mean(x²) + eps) · weight for each row of `x` `[rows, n]`, into `out` `[rows, n]`.
///
/// `weight` `[n]` is used as it is (Gemma 3's offset of 1 is already in it). `None` is all ones.
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, n: usize, eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        out.copy_from_slice(x);
        norm_row(out, weight, eps);
    }
}

/// The end of a residual branch alone: for each row `x += rms_norm(branch)·post_weight`.
///
/// `x`, `branch`: `[rows, n]`; the weight: `[n]`.
pub fn rms_norm_add(x: &mut [f32], branch: &[f32], post_weight: &[f32], eps: f32) {
    let mut normed = vec![0.0; branch.len()];
    rms_norm(branch, Some(post_weight), post_weight.len(), eps, &mut normed);
    x.iter_mut().zip(&normed).for_each(|(x, branch)| *x += branch);
}

/// The end of a residual branch and the norm before the next: for each row,
/// `x = (x + rms_norm(branch)·post_weight) · scalar`, then `out = rms_norm(x)·next_weight`.
///
/// `x`, `branch`, `out`: `[rows, n]`; the weights: `[n]`.
pub fn add_rms_norm(
    x: &mut [f32],
    branch: &[f32],
    post_weight: &[f32],
    scalar: f32,
    next_weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let n = post_weight.len();
    rms_norm(branch, Some(post_weight), n, eps, out);
    for (x, branch) in x.iter_mut().zip(out.iter()) {
        *x = (*x + branch) * scalar;
    }
    rms_norm(x, Some(next_weight), n, eps, out);
}

/// [`rms_norm`] of one row, in place.
pub(super) fn norm_row(row: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    let mean_square = dot(row, row) / row.len() as f32;
    let factor = 1.0 / (mean_square + eps).sqrt();
    row.iter_mut().for_each(|value| *value *= factor);
    if let Some(weight) = weight {
        assert_eq!(row.len(), weight.len());
        row.iter_mut().zip(weight).for_each(|(value, weight)| *value *= weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::ops::testing::{assert_close, random};

    fn formula(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(weight).map(|(x, &w)| x / (mean_square + eps).sqrt() * w as f64).collect()
    }

    fn to_f64(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| x as f64).collect()
    }

    #[test]
    fn rms_norm_follows_the_formula() {
        // With a large eps, its place in the formula matters.
        let (n, eps) = (11, 0.25);
        let (x, weight) = (random(2 * n, 1), random(n, 2));
        let mut out = vec![0.0; 2 * n];
        rms_norm(&x, Some(&weight), n, eps, &mut out);
        for row in 0..2 {
            let row = row * n..(row + 1) * n;
            assert_close(&out[row.clone()], &formula(&to_f64(&x[row]), &weight, eps as f64), 1e-6);
        }
        rms_norm(&x, None, n, eps, &mut out);
        assert_close(&out[..n], &formula(&to_f64(&x[..n]), &vec![1.0; n], eps as f64), 1e-6);
    }

    #[test]
    fn zeros_stay_zero() {
        let mut out = [1.0; 4];
        rms_norm(&[0.0; 4], None, 4, 1e-6, &mut out);
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn rms_norm_add_follows_the_formula() {
        let (n, eps) = (9, 1e-3);
        let (x, branch, post) = (random(2 * n, 1), random(2 * n, 2), random(n, 3));
        let mut found = x.clone();
        rms_norm_add(&mut found, &branch, &post, eps);
        for row in 0..2 {
            let row = row * n..(row + 1) * n;
            let normed = formula(&to_f64(&branch[row.clone()]), &post, eps as f64);
            let expected: Vec<f64> =
                x[row.clone()].iter().zip(&normed).map(|(&x, b)| x as f64 + b).collect();
            assert_close(&found[row], &expected, 1e-6);
        }
    }

    #[test]
    fn add_rms_norm_follows_the_formula() {
        let (n, eps, scalar) = (9, 1e-3, 0.7);
        let (x, branch) = (random(2 * n, 1), random(2 * n, 2));
        let (post, next) = (random(n, 3), random(n, 4));
        let (mut new_x, mut out) = (x.clone(), vec![0.0; 2 * n]);
        add_rms_norm(&mut new_x, &branch, &post, scalar, &next, eps, &mut out);
        for row in 0..2 {
            let row = row * n..(row + 1) * n;
            let normed = formula(&to_f64(&branch[row.clone()]), &post, eps as f64);
            let expected_x: Vec<f64> = x[row.clone()]
                .iter()
                .zip(&normed)
                .map(|(&x, b)| (x as f64 + b) * scalar as f64)
                .collect();
            assert_close(&new_x[row.clone()], &expected_x, 1e-6);
            assert_close(&out[row], &formula(&expected_x, &next, eps as f64), 1e-5);
        }
    }
}
