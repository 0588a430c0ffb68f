//! The workloads that `bench` and `--autotune` time: prompts, generation and steps, at a depth.

use std::time::{Duration, Instant};

use crate::backend::{
    Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult, Ticket,
};
use crate::error::Result;
use crate::sampling::{Sampler, SamplingParams};

/// Steps that [`Work::Step`] times, enough to hide the wait for the last one.
const STEPS: usize = 64;

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
    /// Run steps of this number of tokens of a sequence, as a drafter's tokens are checked. Every
    /// step starts at the test's depth and chooses one token, at its last row.
    Step(usize),
}

impl Test {
    /// Tokens that are timed, all sequences together.
    pub fn tokens(&self) -> usize {
        match self.work {
            Work::Prompt(count) | Work::Generate(count) => count * self.parallel,
            Work::Step(count) => STEPS * count * self.parallel,
        }
    }

    /// Steps that are timed, if all have the same shape.
    pub fn steps(&self) -> Option<usize> {
        match self.work {
            Work::Prompt(_) => None,
            Work::Generate(count) => Some(count),
            Work::Step(_) => Some(STEPS),
        }
    }

    /// Positions that a sequence needs.
    pub fn positions(&self) -> usize {
        match self.work {
            Work::Prompt(count) | Work::Step(count) => self.depth.saturating_add(count),
            // Generation starts from a token that has been processed.
            Work::Generate(count) => self.depth.saturating_add(count).saturating_add(1),
        }
    }

    /// `pp512`, `tg128 @ d4096`, `tg128 x 8`, `tg128 (sampled)`, `step5 @ d512`.
    pub fn name(&self) -> String {
        let mut name = match self.work {
            Work::Prompt(count) => format!("pp{count}"),
            Work::Generate(count) => format!("tg{count}"),
            Work::Step(count) => format!("step{count}"),
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

    /// Runs the test `count` times in the same sequences. Returns the times of the timed parts.
    /// Before them the test runs untimed: at least once, and until `warm_up` has passed.
    pub fn run(
        &self,
        backend: &mut dyn Backend,
        warm_up: Option<Duration>,
        count: usize,
        seed: &mut u64,
    ) -> Result<Vec<Duration>> {
        self.in_sequences(backend, async |backend, sequences| {
            if let Some(warm_up) = warm_up {
                // The first run compiles kernels, during which a card's clock may fall.
                self.run_in(backend, sequences, seed).await?;
                let start = Instant::now();
                while start.elapsed() < warm_up {
                    self.run_in(backend, sequences, seed).await?;
                }
            }
            let mut times = Vec::new();
            for _ in 0..count {
                times.push(self.run_in(backend, sequences, seed).await?);
            }
            Ok(times)
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
            self.fill(backend, sequence, seed).await?;
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
            Work::Step(count) => {
                let start = Instant::now();
                for &sequence in sequences {
                    repeat_step(backend, sequence, self.depth, count, seed).await?;
                }
                Ok(start.elapsed())
            }
        }
    }

    /// Gives a sequence the test's depth. It keeps its first positions if they are all held.
    async fn fill(
        &self,
        backend: &mut dyn Backend,
        sequence: SequenceId,
        seed: &mut u64,
    ) -> Result<()> {
        let is_new = backend.sequence_len(sequence) == 0;
        // A sliding layer may have lost the window before the depth.
        if is_new || backend.truncate(sequence, self.depth).is_err() {
            backend.truncate(sequence, 0)?;
            prompt(backend, sequence, self.depth, seed).await?;
        }
        Ok(())
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
    let chunks = tokens.chunks(backend.info().max_step_tokens).map(|chunk| SequenceStep {
        sequence,
        input: StepInput::Tokens(chunk),
        output: StepOutput::Greedy,
    });
    in_flight(backend, chunks, |backend, step| backend.submit(&[step])).await
}

/// Generates `count` tokens in every sequence.
async fn generate(
    backend: &mut dyn Backend,
    sequences: &[SequenceId],
    count: usize,
    mut choice: Choice,
) -> Result<()> {
    in_flight(backend, 0..count, |backend, _| {
        let part = |&sequence| SequenceStep {
            sequence,
            input: StepInput::Previous,
            output: choice.next(),
        };
        backend.submit(&sequences.iter().map(part).collect::<Vec<_>>())
    })
    .await
}

/// Runs [`STEPS`] steps of `count` random tokens after the first `depth` positions of a sequence.
async fn repeat_step(
    backend: &mut dyn Backend,
    sequence: SequenceId,
    depth: usize,
    count: usize,
    seed: &mut u64,
) -> Result<()> {
    in_flight(backend, 0..STEPS, |backend, _| {
        backend.truncate(sequence, depth)?;
        let tokens = random_tokens(backend, count, seed);
        let (input, output) = (StepInput::Tokens(&tokens), StepOutput::Greedy);
        backend.submit(&[SequenceStep { sequence, input, output }])
    })
    .await
}

/// Submits a step for every item. Two steps are in flight, so that the device never waits for the
/// host and work does not accumulate.
async fn in_flight<T>(
    backend: &mut dyn Backend,
    items: impl IntoIterator<Item = T>,
    mut submit: impl FnMut(&mut dyn Backend, T) -> Result<Ticket>,
) -> Result<()> {
    let mut last: Option<Ticket> = None;
    for item in items {
        let ticket = submit(backend, item)?;
        if let Some(earlier) = last.replace(ticket) {
            tokens(backend.read(earlier).await?)?;
        }
    }
    match last {
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
