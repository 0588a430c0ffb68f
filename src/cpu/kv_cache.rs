//! Keys and values of one layer of one sequence.

use std::ops::Range;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::model::kv::CacheType;

/// Elements of a cache. They are allocated as zeroed bits, whose memory an operating system
/// provides on first use. A long context thus only costs the memory of used positions.
#[derive(Debug)]
enum Elements {
    F16(Vec<u16>),
    F32(Vec<f32>),
}

/// Keys and values of one layer of one sequence, each `[capacity, n_kv_heads, head_dim]`.
///
/// Position p is in slot `p % capacity`. A layer with full attention has a slot for each position
/// of the context. A layer with a window has a ring for the window and a whole step.
#[derive(Debug)]
pub struct KvCache {
    keys: Elements,
    values: Elements,
    capacity: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

impl KvCache {
    /// An empty cache of `capacity` positions (at least one).
    pub fn new(cache_type: CacheType, capacity: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        let elements = || match cache_type {
            CacheType::F16 => Elements::F16(vec![0; capacity * n_kv_heads * head_dim]),
            CacheType::F32 => Elements::F32(vec![0.0; capacity * n_kv_heads * head_dim]),
        };
        KvCache { keys: elements(), values: elements(), capacity, n_kv_heads, head_dim }
    }

    /// Number of slots for positions.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Stores key and value of a position, each `[n_kv_heads, head_dim]`.
    pub fn store(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let len = self.n_kv_heads * self.head_dim;
        let start = position % self.capacity * len;
        self.keys.store(start, key);
        self.values.store(start, value);
    }

    /// Reads the key of a position and head into `out`, shape `[head_dim]`.
    pub fn key(&self, position: usize, kv_head: usize, out: &mut [f32]) {
        self.keys.load(self.start(position, kv_head), out);
    }

    /// Reads the value of a position and head into `out`, shape `[head_dim]`.
    pub fn value(&self, position: usize, kv_head: usize, out: &mut [f32]) {
        self.values.load(self.start(position, kv_head), out);
    }

    /// Reads keys and values of a head at consecutive positions into the first elements of `keys`
    /// and `values`, each `[positions, head_dim]`.
    pub fn load_block(
        &self,
        positions: Range<usize>,
        kv_head: usize,
        keys: &mut [f32],
        values: &mut [f32],
    ) {
        let of_positions =
            keys.chunks_exact_mut(self.head_dim).zip(values.chunks_exact_mut(self.head_dim));
        for (position, (key, value)) in positions.zip(of_positions) {
            self.key(position, kv_head, key);
            self.value(position, kv_head, value);
        }
    }

    fn start(&self, position: usize, kv_head: usize) -> usize {
        (position % self.capacity * self.n_kv_heads + kv_head) * self.head_dim
    }
}

impl Elements {
    fn store(&mut self, start: usize, from: &[f32]) {
        match self {
            Elements::F16(bits) => bits[start..][..from.len()]
                .reinterpret_cast_mut::<f16>()
                .convert_from_f32_slice(from),
            Elements::F32(values) => values[start..][..from.len()].copy_from_slice(from),
        }
    }

    fn load(&self, start: usize, out: &mut [f32]) {
        match self {
            Elements::F16(bits) => {
                bits[start..][..out.len()].reinterpret_cast::<f16>().convert_to_f32_slice(out)
            }
            Elements::F32(values) => out.copy_from_slice(&values[start..][..out.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector that identifies position, head and element. All of it is exact in f16.
    fn pattern(position: usize, len: usize, sign: f32) -> Vec<f32> {
        (0..len).map(|i| sign * (position * 16 + i) as f32).collect()
    }

    #[test]
    fn a_ring_holds_the_last_positions() {
        for cache_type in [CacheType::F16, CacheType::F32] {
            let (capacity, heads, dim) = (5, 2, 3);
            let mut cache = KvCache::new(cache_type, capacity, heads, dim);
            for position in 0..12 {
                cache.store(
                    position,
                    &pattern(position, heads * dim, 1.0),
                    &pattern(position, heads * dim, -1.0),
                );
            }
            for position in 12 - capacity..12 {
                for head in 0..heads {
                    let (mut key, mut value) = ([0.0; 3], [0.0; 3]);
                    cache.key(position, head, &mut key);
                    cache.value(position, head, &mut value);
                    assert_eq!(key, pattern(position, heads * dim, 1.0)[head * dim..][..dim]);
                    assert_eq!(value, pattern(position, heads * dim, -1.0)[head * dim..][..dim]);
                }
            }
        }
    }

    #[test]
    fn an_f16_cache_rounds() {
        let mut cache = KvCache::new(CacheType::F16, 1, 1, 1);
        cache.store(0, &[1.0 + 2f32.powi(-12)], &[0.1]);
        let mut out = [0.0];
        cache.key(0, 0, &mut out);
        assert_eq!(out, [1.0]);
        cache.value(0, 0, &mut out);
        assert_eq!(out, [f16::from_f32(0.1).to_f32()]);
    }
}
