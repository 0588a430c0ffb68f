//! The host chooses from logits; the device waits for the choice.

use std::collections::HashMap;

use crate::backend::{Backend, StepInput, StepOutput, StepResult};
use crate::error::Result;
use crate::generate::decode::{another_kind::another_kind, chosen::Chosen};
use crate::generate::{HostChoice, SequenceState};
use crate::sampling::{Sampler, TokenLogprobs, retain, suppress};

/// Choices by a sampler on the host, which can do more than the devices' samplers.
pub(in crate::generate) struct Host {
    sampler: Box<Sampler>,
    choice: HostChoice,
    /// Occurrences of each token of the answer.
    counts: HashMap<u32, u32>,
    is_prepared: bool,
}

impl Host {
    pub fn new(sampler: Box<Sampler>, choice: HostChoice) -> Host {
        Host { sampler, choice, counts: HashMap::new(), is_prepared: false }
    }

    pub fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    /// Computes the tokens that a constraint allows next.
    pub fn prepare(&mut self) -> Result<()> {
        if let Some(constraint) = self.choice.constraint.as_mut().filter(|_| !self.is_prepared) {
            constraint.prepare()?;
        }
        self.is_prepared = true;
        Ok(())
    }

    /// Waits for the logits after `context` and chooses from them.
    pub async fn choose(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        context: &[u32],
        suppressed: &[u32],
    ) -> Result<Chosen> {
        self.prepare()?;
        self.token(sequence.read(backend).await?, context, suppressed)
    }

    /// Chooses from the logits after `context`.
    pub fn token(
        &mut self,
        result: StepResult,
        context: &[u32],
        suppressed: &[u32],
    ) -> Result<Chosen> {
        let StepResult::Logits(mut logits) = result else { return Err(another_kind(&result)) };
        self.prepare()?;
        suppress(&mut logits, suppressed);
        let (choice, counts) = (&mut self.choice, &mut self.counts);
        let raw = choice.logprobs.map(|_| logits.clone());
        if let Some(allowed) = choice.constraint.as_ref().and_then(|limit| limit.allowed()) {
            retain(&mut logits, allowed);
        }
        choice.adjustments.apply(&mut logits, counts);
        let id = self.sampler.sample(&logits, context)?;
        *counts.entry(id).or_default() += 1;
        self.is_prepared = false;
        let is_last = match &mut choice.constraint {
            Some(constraint) => constraint.accept(id)?,
            None => false,
        };
        let likeliest = choice.logprobs.unwrap_or(0);
        let logprobs = raw.map(|raw| Box::new(TokenLogprobs::new(&raw, id, likeliest)));
        Ok(Chosen { id, logprobs, is_last })
    }

    /// Submits the step whose input is `token`.
    pub fn go_on(
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        token: u32,
    ) -> Result<()> {
        sequence.submit(backend, StepInput::Tokens(&[token]), StepOutput::LastLogits)
    }
}
