use rayon::prelude::*;

use crate::cpu::{kv_cache::KvCache, ops::dot};

/// The numbers of an attention layer that its cache does not have.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Query heads. Every `n_heads / n_kv_heads` consecutive ones share a KV head.
    pub n_heads: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// A query at position p sees keys in (p − window, p]; `None`: in [0, p].
    pub window: Option<usize>,
}

/// Scaled dot-product attention of `q` `[rows, n_heads, head_dim]`, into `out` of the same shape.
/// Row r is at position `first_position + r`. `cache` already has the keys and values of these
/// positions.
pub fn sdpa(
    q: &[f32],
    cache: &KvCache,
    first_position: usize,
    attention: Attention,
    out: &mut [f32],
) {
    let (n_heads, head_dim) = (attention.n_heads, cache.head_dim());
    let heads_per_kv = n_heads / cache.n_kv_heads();
    assert_eq!(q.len(), out.len());
    let heads = q.par_chunks_exact(head_dim).zip(out.par_chunks_exact_mut(head_dim)).enumerate();
    heads.for_each(|(i, (q, out))| {
        let (position, kv_head) = (first_position + i / n_heads, i % n_heads / heads_per_kv);
        let start = attention.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let mut loaded = vec![0.0; head_dim];
        let mut weights: Vec<f32> = (start..=position)
            .map(|key| {
                cache.key(key, kv_head, &mut loaded);
                dot(q, &loaded) * attention.scale
            })
            .collect();
        softmax(&mut weights);
        out.fill(0.0);
        for (key, weight) in (start..=position).zip(weights) {
            cache.value(key, kv_head, &mut loaded);
            out.iter_mut().zip(&loaded).for_each(|(out, value)| *out += weight * value);
        }
    });
}

/// exp(x) / Σ exp(x), in place. The largest x is subtracted first to avoid overflow.
fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::ops::testing::{assert_close, random},
        model::kv::CacheType,
    };

    const DIM: usize = 6;
    const KV_HEADS: usize = 2;

    /// Keys and values of all positions, as stored into the cache: `[positions, KV_HEADS, DIM]`.
    fn fill(cache: &mut KvCache, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let (keys, values) =
            (random(positions * KV_HEADS * DIM, 1), random(positions * KV_HEADS * DIM, 2));
        let width = KV_HEADS * DIM;
        for position in 0..positions {
            cache.store(
                position,
                &keys[position * width..][..width],
                &values[position * width..][..width],
            );
        }
        (keys, values)
    }

    fn formula(
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        visible: std::ops::RangeInclusive<usize>,
        kv: usize,
    ) -> Vec<f64> {
        let at =
            |x: &[f32], position: usize, i: usize| x[(position * KV_HEADS + kv) * DIM + i] as f64;
        let scores: Vec<f64> = visible
            .clone()
            .map(|p| (0..DIM).map(|i| q[i] as f64 * at(keys, p, i)).sum::<f64>() * 0.8)
            .collect();
        let sum: f64 = scores.iter().map(|s| s.exp()).sum();
        (0..DIM)
            .map(|i| {
                visible.clone().zip(&scores).map(|(p, s)| s.exp() / sum * at(values, p, i)).sum()
            })
            .collect()
    }

    #[test]
    fn sdpa_follows_the_formula() {
        let (n_heads, positions, rows) = (4, 23, 3);
        let first = positions - rows;
        for (window, capacity) in
            [(None, positions), (Some(4), 4 + rows), (Some(1), 5), (Some(100), positions)]
        {
            let mut cache = KvCache::new(CacheType::F32, capacity, KV_HEADS, DIM);
            let (keys, values) = fill(&mut cache, positions);
            let q = random(rows * n_heads * DIM, 3);
            let mut out = vec![f32::NAN; q.len()];
            sdpa(&q, &cache, first, Attention { n_heads, scale: 0.8, window }, &mut out);
            for i in 0..rows * n_heads {
                let (position, kv) = (first + i / n_heads, i % n_heads / 2);
                let start = window.map_or(0, |window: usize| (position + 1).saturating_sub(window));
                let expected = formula(&q[i * DIM..], &keys, &values, start..=position, kv);
                assert_close(&out[i * DIM..][..DIM], &expected, 1e-6);
            }
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let mut x = [1000.0, 999.0];
        softmax(&mut x);
        let e = 1f64.exp();
        assert_close(&x, &[e / (e + 1.0), 1.0 / (e + 1.0)], 1e-6);
    }
}
