//! Decoding strategies: where the next token is chosen, and which steps are then in flight.

mod ahead;
mod another_kind;
mod chosen;
mod host;

use self::{ahead::Ahead, chosen::Chosen, host::Host};
use crate::backend::{Backend, StepOutput, StepResult};
use crate::error::Result;
use crate::generate::{HostChoice, SequenceState};
use crate::sampling::{Sampler, SamplingParams};

/// How the next token is chosen, and where.
pub(super) enum Strategy {
    Ahead(Ahead),
    Host(Box<Host>),
}

impl Strategy {
    /// The device chooses where it can. The host does what `choice` asks.
    ///
    /// Errors: unusable sampling values or adjustments.
    pub fn new(params: &SamplingParams, choice: HostChoice) -> Result<Strategy> {
        let sampler = Box::new(Sampler::new(*params)?);
        choice.adjustments.validate()?;
        let is_greedy = params.temperature == 0.0 && params.repetition_penalty == 1.0;
        Ok(match choice.is_needed() {
            false if is_greedy => Strategy::Ahead(Ahead::greedy()),
            false if params.fit_device() => Strategy::Ahead(Ahead::sampled(sampler)),
            _ => Strategy::Host(Box::new(Host::new(sampler, choice))),
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

    /// Does what the next choice needs beside its logits, while the device computes these.
    ///
    /// Errors: a constraint fails.
    pub fn prepare(&mut self) -> Result<()> {
        match self {
            Strategy::Ahead(_) => Ok(()),
            Strategy::Host(host) => host.prepare(),
        }
    }

    /// The token after `context`, from the result of a step with [`Self::output`].
    ///
    /// Errors: a result of another kind, logits that are not numbers, a constraint that fails.
    pub fn token(
        &mut self,
        result: StepResult,
        context: &[u32],
        suppressed: &[u32],
    ) -> Result<Chosen> {
        match self {
            Strategy::Ahead(_) => Ok(Ahead::token(result)?.into()),
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
    ) -> Result<Chosen> {
        match self {
            Strategy::Ahead(ahead) => Ok(ahead.choose(backend, sequence, more).await?.into()),
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
