use std::f32::consts::FRAC_2_PI;

/// `gate = gelu(gate) · up`, elementwise, with the tanh form of GELU:
/// `x/2 · (1 + tanh(sqrt(2/π)·(x + 0.044715·x³)))`.
pub fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = *gate;
        let inner = FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x);
        *gate = 0.5 * x * (1.0 + inner.tanh()) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::ops::testing::assert_close;

    /// Values of the exact GELU, x·Φ(x). The tanh form differs by at most 5e-4.
    #[test]
    fn is_close_to_the_exact_gelu() {
        let x = [-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 30.0, -30.0];
        let exact =
            [-0.004_049_7, -0.158_655_3, 0.0, 0.345_731_2, 0.841_344_7, 1.954_499_7, 30.0, 0.0];
        let mut out = x;
        gelu_mul(&mut out, &[1.0; 8]);
        assert_close(&out, &exact, 5e-4);
    }

    #[test]
    fn follows_the_formula() {
        let x: Vec<f32> = (-40..40).map(|i| i as f32 / 8.0).collect();
        let up: Vec<f32> = (0..80).map(|i| 1.0 - i as f32 / 30.0).collect();
        let expected: Vec<f64> = x
            .iter()
            .zip(&up)
            .map(|(&x, &up)| {
                let x = x as f64;
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh()) * up as f64
            })
            .collect();
        let mut out = x;
        gelu_mul(&mut out, &up);
        assert_close(&out, &expected, 2e-6);
    }
}
