//! What a request asks of the choice of its tokens, beside the sampling values.

use std::fmt;

use crate::error::Result;
use crate::sampling::Adjustments;

/// Limits the tokens of one answer, such as to those of a grammar.
pub trait Constraint: Send {
    /// Computes the tokens that may come next. The device computes their logits meanwhile.
    ///
    /// Errors: the limits of the computation are exceeded.
    fn prepare(&mut self) -> Result<()>;

    /// After [`Self::prepare`]: a bit for each token id, 32 in a word, the lowest id in the lowest
    /// bit. Ids beyond the last word are not allowed. `None` allows all tokens.
    fn allowed(&self) -> Option<&[u32]>;

    /// Takes the next token of the answer, which may be an end token. Returns whether the answer
    /// ends with it, because nothing may follow.
    ///
    /// Errors: the token was not allowed.
    fn accept(&mut self, token: u32) -> Result<bool>;
}

/// What only the host can do to choose tokens. By default nothing.
#[derive(Default)]
pub struct HostChoice {
    pub adjustments: Adjustments,
    /// Report the log probability of each token, and of this many of the likeliest ones.
    pub logprobs: Option<usize>,
    pub constraint: Option<Box<dyn Constraint>>,
}

impl HostChoice {
    /// Whether anything is asked of the host.
    pub fn is_needed(&self) -> bool {
        self.adjustments != Adjustments::default()
            || self.logprobs.is_some()
            || self.constraint.is_some()
    }
}

impl fmt::Debug for HostChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostChoice")
            .field("adjustments", &self.adjustments)
            .field("logprobs", &self.logprobs)
            .field("is_constrained", &self.constraint.is_some())
            .finish()
    }
}
