use crate::cpu::{kv_cache::KvCache, ops::norm::norm_row};

/// Norms and rotates heads in place: `x` `[rows, heads, head_dim]`, row r at position
/// `first_position + r`.
///
/// Each head is RMS-normed with `norm_weight` `[head_dim]`. Then dims i and i + head_dim/2 rotate
/// by the angle position · `inverse_frequencies[i]`. These are `[head_dim/2]`, with 0 for pairs
/// that do not rotate.
pub fn qk_norm_rope(
    x: &mut [f32],
    heads: usize,
    norm_weight: &[f32],
    eps: f32,
    inverse_frequencies: &[f32],
    first_position: usize,
) {
    let head_dim = norm_weight.len();
    for (row, x) in x.chunks_exact_mut(heads * head_dim).enumerate() {
        let rotation: Vec<(f32, f32)> = inverse_frequencies
            .iter()
            .map(|frequency| ((first_position + row) as f32 * frequency).sin_cos())
            .collect();
        for head in x.chunks_exact_mut(head_dim) {
            norm_row(head, Some(norm_weight), eps);
            rotate(head, &rotation);
        }
    }
}

/// Rotates the pairs (i, i + head_dim/2) of a head. `rotation` is (sin, cos) of each pair's angle.
fn rotate(head: &mut [f32], rotation: &[(f32, f32)]) {
    let (first, second) = head.split_at_mut(rotation.len());
    for ((a, b), (sin, cos)) in first.iter_mut().zip(second).zip(rotation) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// The parameters that make keys and values from the projections' outputs.
#[derive(Debug, Clone, Copy)]
pub struct KvUpdate<'a> {
    /// `[head_dim]`
    pub k_norm: &'a [f32],
    /// Whether values are RMS-normed, without a weight.
    pub v_norm: bool,
    pub eps: f32,
    /// `[head_dim/2]`
    pub inverse_frequencies: &'a [f32],
}

/// Stores keys and values of consecutive positions. `k` and `v` `[rows, n_kv_heads, head_dim]` are
/// the projections' outputs, row r at position `first_position + r`.
///
/// Keys are normed and rotated as in [`qk_norm_rope`]. Values are normed if the update says so.
/// Where V is K, give the k projection as both.
pub fn rope_kv_update(
    k: &[f32],
    v: &[f32],
    update: KvUpdate<'_>,
    first_position: usize,
    cache: &mut KvCache,
) {
    let (heads, head_dim) = (cache.n_kv_heads(), cache.head_dim());
    let (mut keys, mut values) = (k.to_vec(), v.to_vec());
    qk_norm_rope(
        &mut keys,
        heads,
        update.k_norm,
        update.eps,
        update.inverse_frequencies,
        first_position,
    );
    if update.v_norm {
        values.chunks_exact_mut(head_dim).for_each(|head| norm_row(head, None, update.eps));
    }
    let rows = keys.chunks_exact(heads * head_dim).zip(values.chunks_exact(heads * head_dim));
    for (row, (key, value)) in rows.enumerate() {
        cache.store(first_position + row, key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::ops::testing::{assert_close, random},
        model::kv::CacheType,
    };

    const EPS: f32 = 1e-3;

    /// A normed and rotated head in f64.
    fn formula(head: &[f32], weight: &[f32], frequencies: &[f32], position: usize) -> Vec<f64> {
        let mean_square =
            head.iter().map(|&x| x as f64 * x as f64).sum::<f64>() / head.len() as f64;
        let norm = (mean_square + EPS as f64).sqrt();
        let x: Vec<f64> =
            head.iter().zip(weight).map(|(&x, &w)| x as f64 / norm * w as f64).collect();
        let half = head.len() / 2;
        (0..head.len())
            .map(|i| {
                let angle = position as f64 * frequencies[i % half] as f64;
                let turned = if i < half { -x[i + half] } else { x[i - half] };
                x[i] * angle.cos() + turned * angle.sin()
            })
            .collect()
    }

    #[test]
    fn qk_norm_rope_follows_the_formula() {
        let (rows, heads, dim, first) = (3, 2, 6, 41);
        let (x, weight) = (random(rows * heads * dim, 1), random(dim, 2));
        // The last pair does not rotate.
        let frequencies = [1.0, 0.03, 0.0];
        let mut out = x.clone();
        qk_norm_rope(&mut out, heads, &weight, EPS, &frequencies, first);
        for (i, (out, x)) in out.chunks_exact(dim).zip(x.chunks_exact(dim)).enumerate() {
            assert_close(out, &formula(x, &weight, &frequencies, first + i / heads), 1e-5);
        }
    }

    #[test]
    fn rope_kv_update_stores_keys_and_values() {
        let (rows, heads, dim, first) = (4, 2, 4, 9);
        let (k, v, weight) =
            (random(rows * heads * dim, 1), random(rows * heads * dim, 2), random(dim, 3));
        let frequencies = [1.0, 0.1];
        for v_norm in [false, true] {
            let mut cache = KvCache::new(CacheType::F32, 6, heads, dim);
            let update =
                KvUpdate { k_norm: &weight, v_norm, eps: EPS, inverse_frequencies: &frequencies };
            rope_kv_update(&k, &v, update, first, &mut cache);
            for i in 0..rows * heads {
                let (position, head) = (first + i / heads, i % heads);
                let mut stored = vec![0.0; dim];
                cache.key(position, head, &mut stored);
                assert_close(
                    &stored,
                    &formula(&k[i * dim..][..dim], &weight, &frequencies, position),
                    1e-5,
                );
                cache.value(position, head, &mut stored);
                let v = &v[i * dim..][..dim];
                let expected = match v_norm {
                    true => formula(v, &[1.0; 4], &[0.0; 2], 0),
                    false => v.iter().map(|&v| v as f64).collect(),
                };
                assert_close(&stored, &expected, 1e-6);
            }
        }
    }
}
