//! The KV cache: its element type, and how many positions a layer holds.

use crate::model::config::{AttentionKind, LayerConfig};

/// Element type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum CacheType {
    #[default]
    F16,
    F32,
}

/// Positions that a layer's cache holds for a sequence. Sliding attention uses a ring. Its size
/// includes a whole step, which is written before its first query reads the window.
pub(crate) fn cache_capacity(
    layer: &LayerConfig,
    context_length: usize,
    max_step_tokens: usize,
) -> usize {
    match layer.attention {
        AttentionKind::Full => context_length,
        AttentionKind::Sliding { window } => {
            window.saturating_add(max_step_tokens).min(context_length)
        }
    }
}
