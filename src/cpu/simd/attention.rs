//! Attention over a range of keys, in plain loops that compilers vectorize.

use std::ops::Range;

use crate::cpu::KvCache;
use crate::cpu::ops::Attention;
use crate::cpu::simd::float::{dot, exp};

/// Keys and values that are converted to f32 at once, for all queries of a task.
const KEYS: usize = 32;

/// Queries that share a KV head, with a range of keys.
pub struct Attend<'a> {
    /// `[rows, n_heads, head_dim]`
    pub q: &'a [f32],
    pub cache: &'a KvCache,
    pub attention: Attention,
    /// Position of row 0.
    pub first_position: usize,
    /// The rows of the task.
    pub rows: Range<usize>,
    pub kv_head: usize,
    /// The positions of the task's keys. A query sees only those in its window.
    pub keys: Range<usize>,
}

/// A query's sums over some keys.
#[derive(Debug, Clone)]
pub struct Partial {
    /// The largest score; −∞ without keys.
    most: f32,
    /// Σ exp(score − most).
    sum: f32,
    /// Σ exp(score − most)·value, `[head_dim]`.
    values: Vec<f32>,
}

impl Partial {
    /// The attention over the keys of all partials, into `out` `[head_dim]`.
    pub fn merge<'a>(partials: impl Iterator<Item = &'a Partial> + Clone, out: &mut [f32]) {
        let most = partials.clone().fold(f32::NEG_INFINITY, |most, part| most.max(part.most));
        let mut sum = 0.0;
        out.fill(0.0);
        for part in partials.filter(|part| part.sum > 0.0) {
            let factor = (part.most - most).exp();
            sum += factor * part.sum;
            out.iter_mut().zip(&part.values).for_each(|(out, value)| *out += factor * value);
        }
        out.iter_mut().for_each(|out| *out /= sum);
    }
}

/// The partials of a task, `[rows, heads of the KV head]`.
#[inline(always)]
pub fn attend(task: &Attend<'_>, mul_add: impl Fn(f32, f32, f32) -> f32) -> Vec<Partial> {
    let (dim, n_heads) = (task.cache.head_dim(), task.attention.n_heads);
    let heads = n_heads / task.cache.n_kv_heads();
    let empty = Partial { most: f32::NEG_INFINITY, sum: 0.0, values: vec![0.0; dim] };
    let mut partials = vec![empty; task.rows.len() * heads];
    let (mut keys, mut values) = (vec![0.0; KEYS * dim], vec![0.0; KEYS * dim]);
    // Blocks start at multiples of KEYS, so that a query's sums do not depend on other queries.
    let blocks = (task.keys.start / KEYS * KEYS..task.keys.end).step_by(KEYS);
    for start in blocks {
        let block = start.max(task.keys.start)..task.keys.end.min(start + KEYS);
        let start = block.start;
        task.cache.load_block(block.clone(), task.kv_head, &mut keys, &mut values);
        for (row, partials) in task.rows.clone().zip(partials.chunks_exact_mut(heads)) {
            let position = task.first_position + row;
            let window = task.attention.window.unwrap_or(usize::MAX);
            let first = block.start.max((position + 1).saturating_sub(window));
            let end = block.end.min(position + 1);
            if first >= end {
                continue;
            }
            let seen = (first - start) * dim..(end - start) * dim;
            let q = &task.q[(row * n_heads + task.kv_head * heads) * dim..][..heads * dim];
            for (q, partial) in q.chunks_exact(dim).zip(partials) {
                let (keys, values) = (&keys[seen.clone()], &values[seen.clone()]);
                partial.add(q, keys, values, task.attention.scale, &mul_add);
            }
        }
    }
    partials
}

impl Partial {
    /// Adds up to [`KEYS`] keys and values, each `[keys, head_dim]`.
    #[inline(always)]
    fn add(
        &mut self,
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        scale: f32,
        mul_add: &impl Fn(f32, f32, f32) -> f32,
    ) {
        let dim = q.len();
        let mut weights = [f32::NEG_INFINITY; KEYS];
        let mut most = self.most;
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(dim)) {
            *weight = dot(q, key, mul_add) * scale;
            most = most.max(*weight);
        }
        let factor = exp(self.most - most);
        let mut sum = 0.0;
        for weight in &mut weights {
            *weight = exp(*weight - most);
            sum += *weight;
        }
        (self.most, self.sum) = (most, self.sum * factor + sum);
        for value in &mut self.values {
            *value *= factor;
        }
        // Four values at once, which spares loads and stores of the sums.
        let fours = values.chunks_exact(4 * dim);
        let (rest, done) = (fours.remainder(), values.len() / (4 * dim) * 4);
        for (four, w) in fours.zip(weights.as_chunks::<4>().0) {
            let ((a, b), (c, d)) = (four[..2 * dim].split_at(dim), four[2 * dim..].split_at(dim));
            for (i, sum) in self.values.iter_mut().enumerate() {
                let first = mul_add(w[0], a[i], mul_add(w[1], b[i], *sum));
                *sum = mul_add(w[2], c[i], mul_add(w[3], d[i], first));
            }
        }
        for (value, w) in rest.chunks_exact(dim).zip(&weights[done..]) {
            for (sum, value) in self.values.iter_mut().zip(value) {
                *sum = mul_add(*w, *value, *sum);
            }
        }
    }
}
