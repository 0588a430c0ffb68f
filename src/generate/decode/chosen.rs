//! A choice and what belongs to it.

use crate::sampling::TokenLogprobs;

/// A chosen token.
#[derive(Debug)]
pub(in crate::generate) struct Chosen {
    pub id: u32,
    /// If the request wants them.
    pub logprobs: Option<Box<TokenLogprobs>>,
    /// Whether a constraint allows no token after it.
    pub is_last: bool,
}

impl From<u32> for Chosen {
    fn from(id: u32) -> Chosen {
        Chosen { id, logprobs: None, is_last: false }
    }
}
