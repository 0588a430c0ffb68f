//! Ended sequences whose keys and values are kept for prompts that begin like them.

use crate::backend::{Backend, SequenceId};
use crate::error::Result;

/// An ended sequence in its slot.
struct Kept {
    id: SequenceId,
    /// The tokens whose keys and values it holds.
    held: Vec<u32>,
}

/// Kept sequences, the least recently used first. A new request takes the place of one of them, so
/// that they need no memory of their own.
#[derive(Default)]
pub struct Prefixes {
    kept: Vec<Kept>,
}

impl Prefixes {
    /// Slots that are in use by kept sequences.
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// Keeps a sequence that holds these tokens, and perhaps more after them. Steps in flight still
    /// finish.
    pub fn keep(&mut self, backend: &mut dyn Backend, id: SequenceId, held: Vec<u32>) {
        if held.is_empty() || backend.truncate(id, held.len()).is_err() {
            return backend.close_sequence(id);
        }
        self.kept.push(Kept { id, held });
    }

    /// A sequence for a prompt, and the tokens of the prompt that it holds. At least the last token
    /// must run, because its logits choose the first new one. `has_free`: a slot is empty.
    ///
    /// Errors: no sequence can be opened.
    pub fn take(
        &mut self,
        backend: &mut dyn Backend,
        prompt: &[u32],
        has_free: bool,
    ) -> Result<(SequenceId, usize)> {
        let most = prompt.len().saturating_sub(1);
        let shared = |kept: &Kept| {
            let pairs = kept.held.iter().zip(&prompt[..most]);
            pairs.take_while(|(held, token)| held == token).count()
        };
        let mut candidates: Vec<(usize, SequenceId)> = self
            .kept
            .iter()
            .map(|kept| (shared(kept), kept))
            // Another conversation is not given up for a common beginning while a slot is empty.
            .filter(|(shared, kept)| {
                let is_same = 2 * shared >= kept.held.len() || 2 * shared >= prompt.len();
                *shared > 0 && (!has_free || is_same)
            })
            .map(|(shared, kept)| (shared, kept.id))
            .collect();
        candidates.sort_by_key(|&(shared, _)| std::cmp::Reverse(shared));
        for (shared, id) in candidates {
            // A sliding layer may no longer hold the window that ends there.
            if backend.truncate(id, shared).is_ok() {
                self.kept.retain(|kept| kept.id != id);
                return Ok((id, shared));
            }
        }
        if !has_free && !self.kept.is_empty() {
            backend.close_sequence(self.kept.remove(0).id);
        }
        Ok((backend.open_sequence()?, 0))
    }

    /// Frees all slots.
    pub fn clear(&mut self, backend: &mut dyn Backend) {
        self.kept.drain(..).for_each(|kept| backend.close_sequence(kept.id));
    }
}
