//! Prefill in chunks, then decode step by step. Works on tokens, without text or kernels.

mod constraint;
mod decode;
mod evaluate;
mod generator;
mod scheduler;
mod sequence_state;
mod stats;
mod token_stream;

#[cfg(test)]
mod tests;

pub use self::constraint::{Constraint, HostChoice};
pub use self::evaluate::{Divergence, Perplexity, each_logits, each_logits_in_steps};
pub use self::generator::Generator;
pub use self::scheduler::{
    Load, Refused, Scheduler, SchedulerOptions, SequenceRequest, TokenEvent, Tokens,
};
pub use self::sequence_state::SequenceState;
pub use self::stats::Stats;
pub use self::token_stream::{FinishReason, Generation, Request, TokenStream};
use crate::{Error, Result};

/// Errors unless a prompt of `tokens` tokens can be run in a context of `context_length`.
pub fn check_prompt(tokens: usize, context_length: usize) -> Result<()> {
    match tokens {
        0 => Err(Error::Input("the prompt has no tokens".into())),
        n if n > context_length => Err(Error::Input(format!(
            "the prompt has {n} tokens, but the context holds {context_length}"
        ))),
        _ => Ok(()),
    }
}
