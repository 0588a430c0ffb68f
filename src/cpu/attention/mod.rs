//! Attention on the fast path: how queries and keys are divided among the cores.

use rayon::prelude::*;

use crate::cpu::KvCache;
use crate::cpu::ops::Attention;
use crate::cpu::simd::{Attend, InstructionSet, Partial};

/// Rows of a task, which share the conversion of keys and values.
const ROWS: usize = 16;
/// Fewest keys for which a task of few queries is worth a thread.
const FEWEST_KEYS: usize = 256;

/// As [`crate::cpu::ops::sdpa`].
pub fn sdpa(
    set: &dyn InstructionSet,
    q: &[f32],
    cache: &KvCache,
    first_position: usize,
    attention: Attention,
    out: &mut [f32],
) {
    let (n_heads, dim, kv_heads) = (attention.n_heads, cache.head_dim(), cache.n_kv_heads());
    let heads = n_heads / kv_heads;
    let rows = q.len() / (n_heads * dim);
    let seen = |row: usize| {
        let end = first_position + row + 1;
        attention.window.map_or(0, |window| end.saturating_sub(window))..end
    };
    let blocks = rows.div_ceil(ROWS) * kv_heads;
    // One token's keys are divided among the cores where they are many.
    let splits = |keys: usize| {
        let wanted = rayon::current_num_threads().div_ceil(blocks.max(1));
        wanted.min(keys / FEWEST_KEYS).max(1)
    };
    let mut tasks = Vec::new();
    for first in (0..rows).step_by(ROWS) {
        let rows = first..rows.min(first + ROWS);
        let keys = seen(first).start..seen(rows.end - 1).end;
        let of_split = keys.len().div_ceil(splits(keys.len()));
        for kv_head in 0..kv_heads {
            for start in keys.clone().step_by(of_split) {
                let keys = start..keys.end.min(start + of_split);
                let rows = rows.clone();
                tasks.push(Attend { q, cache, attention, first_position, rows, kv_head, keys });
            }
        }
    }
    let fewest = if rows < ROWS && tasks.len() <= kv_heads { kv_heads } else { 1 };
    let partials: Vec<Vec<Partial>> =
        tasks.par_iter().with_min_len(fewest).map(|task| set.attend(task)).collect();
    for (i, out) in out.chunks_exact_mut(dim).enumerate() {
        let (row, head) = (i / n_heads, i % n_heads);
        let of_query = tasks
            .iter()
            .zip(&partials)
            .filter(|(task, _)| task.kv_head == head / heads && task.rows.contains(&row));
        let of_query = of_query
            .map(|(task, partials)| &partials[(row - task.rows.start) * heads + head % heads]);
        Partial::merge(of_query, out);
    }
}

#[cfg(test)]
mod tests;
