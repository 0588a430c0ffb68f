//! Keys and values of one layer of one sequence, updated in place.

use crate::error::{Error, Result};
use crate::mlx::mask::{Sight, sight};
use crate::mlx::ops::{Array, Dtype};
use crate::model::config::{AttentionKind, LayerConfig};
use crate::model::kv::cache_capacity;

/// Keys and values `[1, n_kv_heads, capacity, head_dim]`. Position p is in slot `p % capacity`.
pub struct KvCache {
    /// None after a failed update.
    keys: Option<Array>,
    values: Option<Array>,
    capacity: usize,
    window: Option<usize>,
}

impl KvCache {
    /// An empty cache for a layer. Its memory is allocated at once.
    pub fn new(
        layer: &LayerConfig,
        context_length: usize,
        max_step_tokens: usize,
        dtype: Dtype,
    ) -> Result<KvCache> {
        let capacity = cache_capacity(layer, context_length, max_step_tokens);
        let zeros = || Array::zeros(&[1, layer.n_kv_heads, capacity, layer.head_dim], dtype);
        let window = match layer.attention {
            AttentionKind::Sliding { window } => Some(window),
            AttentionKind::Full => None,
        };
        Ok(KvCache { keys: Some(zeros()?), values: Some(zeros()?), capacity, window })
    }

    /// The slots and mask for queries at these positions.
    pub(super) fn sight(&self, position: usize, rows: usize) -> Sight {
        sight(position, rows, self.capacity, self.window)
    }

    /// Stores `keys` and `values` `[1, n_kv_heads, rows, head_dim]` from `position` on. Drop the
    /// arrays of [`KvCache::slots`] before, because otherwise MLX copies the cache.
    pub fn update(&mut self, keys: &Array, values: &Array, position: usize) -> Result<()> {
        for (cache, update) in [(&mut self.keys, keys), (&mut self.values, values)] {
            let array = cache.take().ok_or_else(lost)?;
            *cache = Some(store(array, update, position % self.capacity)?);
        }
        Ok(())
    }

    /// Keys and values of slots, each `[1, n_kv_heads, slots, head_dim]`.
    pub fn slots(&self, slots: &std::ops::Range<usize>) -> Result<(Array, Array)> {
        let part = |array: &Option<Array>| {
            let array = array.as_ref().ok_or_else(lost)?;
            let shape = array.shape();
            array.slice(&[0, 0, slots.start, 0], &[1, shape[1], slots.end, shape[3]])
        };
        Ok((part(&self.keys)?, part(&self.values)?))
    }
}

/// Writes rows into slots from `first` on, continuing at slot 0 after the end of the ring.
fn store(cache: Array, update: &Array, first: usize) -> Result<Array> {
    let (cache_shape, shape) = (cache.shape(), update.shape());
    let (heads, capacity, rows, dim) = (shape[1], cache_shape[2], shape[2], shape[3]);
    let put = |cache: Array, update: &Array, first: usize, rows: usize| {
        cache.slice_update(update, &[0, 0, first, 0], &[1, heads, first + rows, dim])
    };
    let before = rows.min(capacity - first);
    if before == rows {
        return put(cache, update, first, rows);
    }
    let cache = put(cache, &update.slice(&[0; 4], &[1, heads, before, dim])?, first, before)?;
    put(cache, &update.slice(&[0, 0, before, 0], &[1, heads, rows, dim])?, 0, rows - before)
}

fn lost() -> Error {
    Error::Device("MLX: the KV cache was lost in a step that failed".into())
}
