//! The workloads that `bench` and `--autotune` time: prompts and generation, at a depth, in several
//! sequences.

use std::time::{Duration, Instant};

use crate::backend::{
    Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult, Ticket,
};
use crate::error::Result;
use crate::sampling::{Sampler, SamplingParams};

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    pub work: Work,
    /// Tokens that each sequence holds before the clock starts.
    pub depth: usize,
    /// Sequences that run together.
    pub parallel: usize,
    /// Tokens are drawn at random, as Gemma's authors recommend. Otherwise the likeliest ones are
    /// taken.
    pub sampled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Process a prompt of this many tokens.
    Prompt(usize),
    /// Generate this many tokens.
    Generate(usize),
}

impl Test {
    /// Tokens that are timed, all sequences together.
    pub fn tokens(&self) -> usize {
        match self.work {
            Work::Prompt(count) | Work::Generate(count) => count * self.parallel,
        }
    }

    /// Positions that a sequence needs.
    pub fn positions(&self) -> usize {
        match self.work {
            Work::Prompt(count) => self.depth + count,
            // Generation starts from a token that has been processed.
            Work::Generate(count) => self.depth + 1 + count,
        }
    }

    /// `pp512`, `tg128 @ d4096`, `tg128 x 8`, `tg128 (sampled)`.
    pub fn name(&self) -> String {
        let mut name = match self.work {
            Work::Prompt(count) => format!("pp{count}"),
            Work::Generate(count) => format!("tg{count}"),
        };
        if self.depth > 0 {
            name += &format!(" @ d{}", self.depth);
        }
        if self.parallel > 1 {
            name += &format!(" x {}", self.parallel);
        }
        if self.sampled {
            name += " (sampled)";
        }
        name
    }

    /// Runs the test once from empty sequences. Returns the time of the timed part.
    pub fn run(&self, backend: &mut dyn Backend, seed: &mut u64) -> Result<Duration> {
        self.in_sequences(backend, async |backend, sequences| {
            self.run_in(backend, sequences, seed).await
        })
    }

    /// Opens the test's sequences, waits for `work` on them, and closes them.
    pub(crate) fn in_sequences<T>(
        &self,
        backend: &mut dyn Backend,
        work: impl AsyncFnOnce(&mut dyn Backend, &[SequenceId]) -> Result<T>,
    ) -> Result<T> {
        let sequences: Vec<SequenceId> =
            (0..self.parallel).map(|_| backend.open_sequence()).collect::<Result<_>>()?;
        let outcome = pollster::block_on(work(backend, &sequences));
        sequences.iter().for_each(|&sequence| backend.close_sequence(sequence));
        outcome
    }

    /// How the test's tokens are chosen.
    pub(crate) fn choice(&self, seed: u64) -> Result<Choice> {
        let params = SamplingParams { seed: Some(seed), ..SamplingParams::default() };
        self.sampled.then(|| Sampler::new(params)).transpose().map(Choice)
    }

    async fn run_in(
        &self,
        backend: &mut dyn Backend,
        sequences: &[SequenceId],
        seed: &mut u64,
    ) -> Result<Duration> {
        for &sequence in sequences {
            prompt(backend, sequence, self.depth, seed).await?;
        }
        match self.work {
            Work::Prompt(count) => {
                let start = Instant::now();
                for &sequence in sequences {
                    prompt(backend, sequence, count, seed).await?;
                }
                Ok(start.elapsed())
            }
            Work::Generate(count) => {
                for &sequence in sequences {
                    prompt(backend, sequence, 1, seed).await?;
                }
                let start = Instant::now();
                generate(backend, sequences, count, self.choice(*seed)?).await?;
                Ok(start.elapsed())
            }
        }
    }
}

/// How tokens are chosen: drawn if there is a sampler.
pub(crate) struct Choice(Option<Sampler>);

impl Choice {
    pub fn next(&mut self) -> StepOutput {
        self.0.as_mut().map_or(StepOutput::Greedy, |sampler| StepOutput::Sample(sampler.draw()))
    }
}

/// Runs `count` random tokens and chooses the next one.
pub(crate) async fn prompt(
    backend: &mut dyn Backend,
    sequence: SequenceId,
    count: usize,
    seed: &mut u64,
) -> Result<()> {
    let tokens = random_tokens(backend, count, seed);
    let mut last = None;
    for chunk in tokens.chunks(backend.info().max_step_tokens) {
        // Two steps are in flight, so that the device never waits for the host and work does not
        // accumulate.
        let step =
            SequenceStep { sequence, input: StepInput::Tokens(chunk), output: StepOutput::Greedy };
        let ticket = backend.submit(&[step])?;
        if let Some(earlier) = last.replace(ticket) {
            backend.read(earlier).await?;
        }
    }
    if let Some(ticket) = last {
        backend.read(ticket).await?;
    }
    Ok(())
}

/// Generates `count` tokens in every sequence. The next step is submitted before a token is read.
async fn generate(
    backend: &mut dyn Backend,
    sequences: &[SequenceId],
    count: usize,
    mut choice: Choice,
) -> Result<()> {
    let mut in_flight: Option<Ticket> = None;
    for _ in 0..count {
        let part = |&sequence| SequenceStep {
            sequence,
            input: StepInput::Previous,
            output: choice.next(),
        };
        let step: Vec<SequenceStep<'_>> = sequences.iter().map(part).collect();
        let ticket = backend.submit(&step)?;
        if let Some(earlier) = in_flight.replace(ticket) {
            tokens(backend.read(earlier).await?)?;
        }
    }
    match in_flight {
        Some(ticket) => tokens(backend.read(ticket).await?),
        None => Ok(()),
    }
}

/// Checks that the step chose a token in every sequence.
fn tokens(results: Vec<StepResult>) -> Result<()> {
    match results.iter().all(|result| matches!(result, StepResult::Token(_))) {
        true => Ok(()),
        false => Err(crate::Error::Device("a step chose no token".into())),
    }
}

pub(crate) fn random_tokens(backend: &dyn Backend, count: usize, seed: &mut u64) -> Vec<u32> {
    let vocab = backend.config().vocab_size as u64;
    (0..count).map(|_| (random(seed) % vocab) as u32).collect()
}

/// The next random number of a sequence (xorshift, Marsaglia 2003).
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 11
}
