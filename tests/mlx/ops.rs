//! Each operation against its CPU twin.

use gemma4_wgpu::{
    cpu::{
        KvCache as CpuCache,
        ops::{self, Attention, KvUpdate},
    },
    mlx::{
        KvCache,
        ops::{Array, Dtype, Mask},
    },
    model::{
        config::{AttentionKind, LayerConfig, Rope},
        kv::CacheType,
    },
};

use super::tensors::{array, heads_first, ids, random, values};
use crate::common::assert_close;

#[test]
fn rms_norm() {
    let (rows, n, eps) = (3, 70, 0.25);
    let (x, weight) = (random(rows * n, 1), random(n, 2));
    for weight in [Some(&weight[..]), None] {
        let mut expected = vec![0.0; rows * n];
        ops::rms_norm(&x, weight, n, eps, &mut expected);
        let weight = weight.map(|weight| array(weight, &[n]));
        let found = array(&x, &[rows, n]).rms_norm(weight.as_ref(), eps).unwrap();
        assert_close(&values(&found), &expected, 1e-5, "rms_norm");
    }
}

/// Custom periods from any position on. Infinite ones belong to pairs that are not rotated.
#[test]
fn rope_with_periods() {
    let full = Rope { theta: 1e4, rotated_pairs: 32, scale: 1.0 };
    let proportional = Rope { theta: 1e6, rotated_pairs: 8, scale: 1.0 };
    let linear = Rope { theta: 1e6, rotated_pairs: 32, scale: 8.0 };
    let (rows, heads, dim, eps) = (5, 3, 64, 1e-6);
    for rope in [full, proportional, linear] {
        for position in [0, 1, 1000] {
            let (x, norm) = (random(rows * heads * dim, 1), random(dim, 2));
            let turns = rope.inverse_frequencies(dim);
            let mut expected = x.clone();
            ops::qk_norm_rope(&mut expected, heads, &norm, eps, &turns, position);
            let periods: Vec<f32> = turns.iter().map(|turn| 1.0 / turn).collect();
            assert_eq!(
                periods.iter().filter(|period| period.is_finite()).count(),
                rope.rotated_pairs
            );
            let normed = heads_first(&x, rows, heads, dim)
                .rms_norm(Some(&array(&norm, &[dim])), eps)
                .unwrap();
            let found = normed
                .rope(&array(&periods, &[dim / 2]), dim, position)
                .unwrap()
                .swap_heads()
                .unwrap();
            assert_close(&values(&found), &expected, 1e-4, &format!("{rope:?} at {position}"));
        }
    }
}

/// Grouped heads, with all three masks.
#[test]
fn sdpa() {
    let (heads, kv_heads, dim, keys) = (4, 2, 32, 11);
    let (k, v) = (random(keys * kv_heads * dim, 1), random(keys * kv_heads * dim, 2));
    let mut cache = CpuCache::new(CacheType::F32, keys, kv_heads, dim);
    for position in 0..keys {
        let row = position * kv_heads * dim..(position + 1) * kv_heads * dim;
        cache.store(position, &k[row.clone()], &v[row]);
    }
    let [k, v] = [&k, &v].map(|x| heads_first(x, keys, kv_heads, dim));
    for (rows, window) in [(1, None), (4, None), (4, Some(3))] {
        let (q, first) = (random(rows * heads * dim, 3), keys - rows);
        let mut expected = vec![0.0; q.len()];
        ops::sdpa(
            &q,
            &cache,
            first,
            Attention { n_heads: heads, scale: 0.8, window },
            &mut expected,
        );
        let sees = |query: usize, key: usize| {
            key <= query && window.is_none_or(|window| key + window > query)
        };
        let mask = match (rows, window) {
            (1, None) => Mask::None,
            (_, None) => Mask::Causal,
            _ => {
                let bytes: Vec<u8> = (first..keys)
                    .flat_map(|q| (0..keys).map(move |key| sees(q, key) as u8))
                    .collect();
                Mask::Bool(Array::new(&bytes, &[rows, keys], Dtype::Bool).unwrap())
            }
        };
        let found = heads_first(&q, rows, heads, dim)
            .sdpa(&k, &v, 0.8, &mask)
            .unwrap()
            .swap_heads()
            .unwrap();
        assert_close(&values(&found), &expected, 1e-5, &format!("{rows} rows, window {window:?}"));
    }
}

/// Caches have the same values as the twin's, also around the end of a ring, with the same
/// rounding.
#[test]
fn kv_cache() {
    let (heads, dim, window, most, context) = (2, 8, 4, 3, 100);
    let layer = LayerConfig {
        attention: AttentionKind::Sliding { window },
        n_heads: 2,
        n_kv_heads: heads,
        head_dim: dim,
        rope: Rope { theta: 1e4, rotated_pairs: 4, scale: 1.0 },
        k_eq_v: false,
        intermediate_size: 8,
        kv_from: None,
        experts: None,
    };
    let (norm, turns) = (vec![1.0; dim], vec![0.0; dim / 2]);
    let update = KvUpdate { k_norm: &norm, v_norm: false, eps: 1e-6, inverse_frequencies: &turns };
    for (cache_type, dtype) in [(CacheType::F32, Dtype::F32), (CacheType::F16, Dtype::F16)] {
        let mut cache = KvCache::new(&layer, context, most, dtype).unwrap();
        let mut twin = CpuCache::new(cache_type, window + most, heads, dim);
        let mut position = 0;
        for rows in [3, 1, 2, 3, 3, 1, 3] {
            let (k, v) =
                (random(rows * heads * dim, position as u64), random(rows * heads * dim, 99));
            ops::rope_kv_update(&k, &v, update, position, &mut twin);
            let k = heads_first(&k, rows, heads, dim).rms_norm(None, 1e-6).unwrap();
            cache.update(&k, &heads_first(&v, rows, heads, dim), position).unwrap();
            position += rows;
        }
        let (keys, stored) = cache.slots(&(0..window + most)).unwrap();
        assert_eq!((keys.shape(), keys.dtype()), (vec![1, heads, window + most, dim], Some(dtype)));
        let [keys, stored] = [keys, stored].map(|x| values(&x.astype(Dtype::F32).unwrap()));
        for position in position - window - most..position {
            for head in 0..heads {
                let at = (head * (window + most) + position % (window + most)) * dim;
                let (mut key, mut value) = (vec![0.0; dim], vec![0.0; dim]);
                twin.key(position, head, &mut key);
                twin.value(position, head, &mut value);
                assert_close(&keys[at..at + dim], &key, 1e-3, "key");
                assert_close(&stored[at..at + dim], &value, 0.0, "value");
            }
        }
    }
}

/// The composed operation, and the single kernel that MLX compiles.
#[test]
fn gelu_mul() {
    let (gate, up) = (random(200, 1).iter().map(|x| 6.0 * x).collect::<Vec<f32>>(), random(200, 2));
    let mut expected = gate.clone();
    ops::gelu_mul(&mut expected, &up);
    for fused in [false, true] {
        let (gate, up) = (array(&gate, &[2, 100]), array(&up, &[2, 100]));
        assert_close(
            &values(&gate.gelu_mul(&up, fused).unwrap()),
            &expected,
            1e-5,
            &format!("fused {fused}"),
        );
        let [gate, up] = [gate, up].map(|x| x.astype(Dtype::Bf16).unwrap());
        assert_eq!(gate.gelu_mul(&up, fused).unwrap().dtype(), Some(Dtype::Bf16));
    }
}

#[test]
fn softcap_and_argmax() {
    let x = [-100.0, -3.0, 0.0, 7.0, 1e30, 7.0];
    let mut expected = x;
    ops::softcap(&mut expected, 5.0);
    assert_close(&values(&array(&x, &[1, 6]).softcap(5.0).unwrap()), &expected, 1e-5, "softcap");
    for x in [[1.0, 3.0, 2.0, 3.0], [-5.0, -4.0, -7.0, -4.0], [0.0, -0.0, 0.0, 0.0]] {
        let found = array(&x, &[1, 4]).argmax().unwrap();
        assert_eq!(
            (found.shape(), found.read::<u32>().unwrap()),
            (vec![1], vec![ops::argmax(&x)]),
            "{x:?}"
        );
    }
}

#[test]
fn moving_and_adding() {
    let a = array(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    assert_eq!(values(&a.take(&ids(&[1, 0])).unwrap()), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
    assert_eq!(values(&a.slice(&[0, 1], &[2, 3]).unwrap()), [2.0, 3.0, 5.0, 6.0]);
    assert_eq!(values(&a.pad_columns(1).unwrap()), [1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0]);
    assert_eq!(values(&a.scale(0.5).unwrap()), [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
    assert_eq!(values(&a.add(&a).unwrap()), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    let swapped = a.reshape(&[1, 2, 3, 1]).unwrap().swap_heads().unwrap();
    assert_eq!(
        (swapped.shape(), values(&swapped)),
        (vec![1, 3, 2, 1], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
    );
    let both =
        Array::concatenate(&[a.slice(&[1, 0], &[2, 3]).unwrap(), a.try_clone().unwrap()]).unwrap();
    assert_eq!((both.shape(), values(&both)[..3].to_vec()), (vec![3, 3], vec![4.0, 5.0, 6.0]));
    let updated = a.slice_update(&array(&[9.0], &[1, 1]), &[1, 2], &[2, 3]).unwrap();
    assert_eq!(values(&updated), [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]);
    let (one, two) =
        (Array::random_words(&[2, 8], 1).unwrap(), Array::random_words(&[2, 8], 2).unwrap());
    assert_ne!(one.read::<u32>().unwrap(), two.read::<u32>().unwrap());
}
