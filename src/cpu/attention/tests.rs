//! Attention with every set of instructions against its twin.

use super::*;
use crate::cpu::instructions::Instructions;
use crate::cpu::ops::{self, testing::random};
use crate::model::kv::CacheType;

struct Case {
    cache_type: CacheType,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    first: usize,
    rows: usize,
    window: Option<usize>,
}

fn check(instructions: Instructions, case: &Case) {
    let &Case { cache_type, n_heads, n_kv_heads, head_dim, first, rows, window } = case;
    let end = first + rows;
    // A ring has room for the window and a step.
    let capacity = window.map_or(end, |window| window + rows);
    let mut cache = KvCache::new(cache_type, capacity, n_kv_heads, head_dim);
    let len = n_kv_heads * head_dim;
    let (keys, values) = (random(end * len, 1), random(end * len, 2));
    for position in 0..end {
        let at = position * len..(position + 1) * len;
        cache.store(position, &keys[at.clone()], &values[at]);
    }
    let q: Vec<f32> = random(rows * n_heads * head_dim, 3).iter().map(|x| 4.0 * x).collect();
    let attention = Attention { n_heads, scale: 0.7, window };
    let (mut expected, mut found) = (vec![0.0; q.len()], vec![f32::NAN; q.len()]);
    ops::sdpa(&q, &cache, first, attention, &mut expected);
    sdpa(&*instructions.set().unwrap(), &q, &cache, first, attention, &mut found);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (found - expected).abs() <= 1e-5,
            "{}, {head_dim}, {first}, {rows} rows, {window:?}, {i}: {found}, not {expected}",
            instructions.name()
        );
    }
}

#[test]
fn attention_agrees_with_its_twin() {
    for instructions in Instructions::available() {
        for cache_type in [CacheType::F16, CacheType::F32] {
            for (n_heads, n_kv_heads, head_dim) in [(1, 1, 1), (4, 1, 40), (6, 3, 33), (4, 4, 256)]
            {
                for (first, rows) in [(0, 1), (0, 5), (31, 1), (3, 40), (70, 17)] {
                    for window in [None, Some(1), Some(20)] {
                        let case =
                            Case { cache_type, n_heads, n_kv_heads, head_dim, first, rows, window };
                        check(instructions, &case);
                    }
                }
            }
        }
    }
}

/// The keys of one token are divided among threads.
#[test]
fn many_keys_are_divided() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    for instructions in Instructions::available() {
        for (first, rows, window) in [(2000, 1, None), (1500, 3, Some(1100)), (1100, 2, None)] {
            let (cache_type, head_dim) = (CacheType::F16, 16);
            let case =
                Case { cache_type, n_heads: 4, n_kv_heads: 2, head_dim, first, rows, window };
            pool.install(|| check(instructions, &case));
        }
    }
}
