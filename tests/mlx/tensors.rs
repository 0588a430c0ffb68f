//! Converts values to and from MLX, and makes random ones.

use gemma4_wgpu::mlx::ops::{Array, Dtype};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// An f32 array.
pub fn array(values: &[f32], shape: &[usize]) -> Array {
    Array::new(bytemuck::cast_slice(values), shape, Dtype::F32).unwrap()
}

pub fn ids(values: &[u32]) -> Array {
    Array::new(bytemuck::cast_slice(values), &[values.len()], Dtype::U32).unwrap()
}

pub fn values(array: &Array) -> Vec<f32> {
    assert_eq!(array.dtype(), Some(Dtype::F32));
    array.read().unwrap()
}

/// `len` values in [−1, 1), the same for the same seed.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// `[rows, heads, dim]` in MLX's layout, `[1, heads, rows, dim]`.
pub fn heads_first(values: &[f32], rows: usize, heads: usize, dim: usize) -> Array {
    array(values, &[1, rows, heads, dim]).swap_heads().unwrap()
}
