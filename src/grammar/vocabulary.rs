//! The vocabulary in the form of llguidance.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use crate::text::Tokenizer;

/// The tokens of a model with `vocab_size` logits. Control tokens are no text, so that a grammar
/// must name them by their id. `end` is one of the tokens that end an answer.
pub(super) fn token_environment(tokenizer: &Tokenizer, vocab_size: usize, end: u32) -> TokEnv {
    let word = |id: u32| {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        match tokenizer.is_control(id) {
            true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.as_slice()].concat(),
            false => bytes,
        }
    };
    let words: Vec<Vec<u8>> = (0..vocab_size as u32).map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, end), &words);
    Arc::new(ApproximateTokEnv::new(trie))
}
