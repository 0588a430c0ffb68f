//! The host chooses from logits; the device waits for the choice.

use crate::backend::{Backend, StepInput, StepOutput, StepResult};
use crate::error::Result;
use crate::generate::{SequenceState, decode::another_kind::another_kind};
use crate::sampling::{Sampler, suppress};

/// Choices by a sampler on the host, which can do more than the devices' samplers.
pub(in crate::generate) struct Host {
    sampler: Box<Sampler>,
}

impl Host {
    pub fn new(sampler: Box<Sampler>) -> Host {
        Host { sampler }
    }

    pub fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    /// Waits for the logits after `context` and chooses from them.
    pub async fn choose(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        context: &[u32],
        suppressed: &[u32],
    ) -> Result<u32> {
        self.token(sequence.read(backend).await?, context, suppressed)
    }

    /// Chooses from the logits after `context`.
    pub fn token(
        &mut self,
        result: StepResult,
        context: &[u32],
        suppressed: &[u32],
    ) -> Result<u32> {
        match result {
            StepResult::Logits(mut logits) => {
                suppress(&mut logits, suppressed);
                self.sampler.sample(&logits, context)
            }
            other => Err(another_kind(&other)),
        }
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
