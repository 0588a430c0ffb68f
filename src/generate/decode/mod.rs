//! Decoding strategies: where the next token is chosen, and which steps are then in flight.

mod ahead;
mod another_kind;
mod host;

use self::{ahead::Ahead, host::Host};
use crate::backend::{Backend, StepOutput, StepResult};
use crate::error::Result;
use crate::generate::SequenceState;
use crate::sampling::{Sampler, SamplingParams};

/// How the next token is chosen, and where.
pub(super) enum Strategy {
    Ahead(Ahead),
    Host(Host),
}

impl Strategy {
    /// The device chooses where it can.
    ///
    /// Errors: unusable sampling values.
    pub fn new(params: &SamplingParams) -> Result<Strategy> {
        let sampler = Box::new(Sampler::new(*params)?);
        Ok(match params.temperature == 0.0 && params.repetition_penalty == 1.0 {
            true => Strategy::Ahead(Ahead::greedy()),
            false if params.fit_device() => Strategy::Ahead(Ahead::sampled(sampler)),
            false => Strategy::Host(Host::new(sampler)),
        })
    }

    /// The output that the next step should give. Called once for each token, in order.
    pub fn output(&mut self) -> StepOutput {
        match self {
            Strategy::Ahead(ahead) => ahead.output(),
            Strategy::Host(_) => StepOutput::LastLogits,
        }
    }

    /// The seed that repeats the choices; `None` for greedy choices.
    pub fn seed(&self) -> Option<u64> {
        match self {
            Strategy::Ahead(ahead) => ahead.seed(),
            Strategy::Host(host) => Some(host.seed()),
        }
    }

    /// Whether the next step can be submitted before the token of the last one is read.
    pub fn runs_ahead(&self) -> bool {
        matches!(self, Strategy::Ahead(_))
    }

    /// The token after `context`, from the result of a step with [`Self::output`].
    ///
    /// Errors: a result of another kind, logits that are not numbers.
    pub fn token(
        &mut self,
        result: StepResult,
        context: &[u32],
        suppressed: &[u32],
    ) -> Result<u32> {
        match self {
            Strategy::Ahead(_) => Ahead::token(result),
            Strategy::Host(host) => host.token(result, context, suppressed),
        }
    }

    /// Waits for the token after `context`. `more`: another token may follow it.
    pub async fn choose(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        context: &[u32],
        suppressed: &[u32],
        more: bool,
    ) -> Result<u32> {
        match self {
            Strategy::Ahead(ahead) => ahead.choose(backend, sequence, more).await,
            Strategy::Host(host) => host.choose(backend, sequence, context, suppressed).await,
        }
    }

    /// Submits the next step after `token`, if necessary.
    pub fn go_on(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        token: u32,
    ) -> Result<()> {
        match self {
            // That step is already in flight.
            Strategy::Ahead(_) => Ok(()),
            Strategy::Host(_) => Host::go_on(backend, sequence, token),
        }
    }
}
