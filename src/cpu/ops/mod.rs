//! The operations of a forward pass on plain slices, each the twin of one GPU kernel.
//!
//! The comments give the shapes, outermost dimension first. Slices of other lengths are the
//! caller's mistake and panic. All arithmetic is f32.

mod attention;
mod embed;
mod experts;
mod gelu;
mod matmul;
mod norm;
mod per_layer;
mod quantize;
mod rope;
mod sample;

pub use attention::{Attention, sdpa};
pub use embed::embed;
pub use experts::{
    expert_inputs, experts_matmul, gelu_mul_pairs, join_experts, route, sum_experts,
};
pub use gelu::gelu_mul;
pub use matmul::{matmul, matmul_q8};
pub use norm::{add_rms_norm, rms_norm, rms_norm_add};
pub use per_layer::{per_layer_columns, per_layer_inputs};
pub use quantize::{QUANTIZE_GROUP, QuantizedRows, quantize_rows};
pub use rope::{KvUpdate, qk_norm_rope, rope_kv_update};
pub use sample::{argmax, sample, softcap, suppress};

/// Σ aᵢ·bᵢ in eight partial sums, which a compiler can vectorize.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let mut sums = [0.0f32; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
pub(in crate::cpu) mod testing {
    use rand::RngExt;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    /// `len` values in [−1, 1), the same for the same seed.
    pub fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// Fails at the first element that differs from the f64 formula by more than `tolerance`.
    #[track_caller]
    pub fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(actual.len(), expected.len());
        for (i, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
            let difference = (actual as f64 - expected).abs();
            assert!(difference <= tolerance, "element {i}: {actual}, expected {expected}");
        }
    }

    #[test]
    fn dot_takes_every_element() {
        for len in [0, 1, 7, 8, 9, 31, 64] {
            let (a, b) = (random(len, 1), random(len, 2));
            let expected: f64 = a.iter().zip(&b).map(|(&a, &b)| a as f64 * b as f64).sum();
            assert_close(&[super::dot(&a, &b)], &[expected], 1e-6);
        }
    }
}
