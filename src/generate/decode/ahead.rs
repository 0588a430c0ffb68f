//! Choices by the device. The step after a token is submitted before the host has read that token.

use crate::backend::{Backend, StepInput, StepOutput, StepResult};
use crate::error::Result;
use crate::generate::{SequenceState, decode::another_kind::another_kind};
use crate::sampling::Sampler;

/// Choices of the device: the likeliest token, or one drawn with random numbers from the host.
pub(in crate::generate) struct Ahead {
    sampler: Option<Box<Sampler>>,
}

impl Ahead {
    pub fn greedy() -> Ahead {
        Ahead { sampler: None }
    }

    pub fn sampled(sampler: Box<Sampler>) -> Ahead {
        Ahead { sampler: Some(sampler) }
    }

    pub fn output(&mut self) -> StepOutput {
        match &mut self.sampler {
            None => StepOutput::Greedy,
            Some(sampler) => StepOutput::Sample(sampler.draw()),
        }
    }

    pub fn seed(&self) -> Option<u64> {
        self.sampler.as_ref().map(|sampler| sampler.seed())
    }

    /// The token of a step's result.
    pub fn token(result: StepResult) -> Result<u32> {
        match result {
            StepResult::Token(token) => Ok(token),
            other => Err(another_kind(&other)),
        }
    }

    /// Submits the step after the token if there may be one, then waits for the token.
    pub async fn choose(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        more: bool,
    ) -> Result<u32> {
        if more {
            sequence.submit(backend, StepInput::Previous, self.output())?;
        }
        let token = Ahead::token(sequence.read(backend).await?)?;
        if more {
            sequence.push(token);
        }
        Ok(token)
    }
}
