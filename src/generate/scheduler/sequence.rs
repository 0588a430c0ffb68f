//! One request on its way through the scheduler.

use std::num::NonZeroUsize;

use crate::backend::{SequenceId, SequenceStep, StepInput, StepOutput, StepResult};
use crate::error::Result;
use crate::generate::decode::Strategy;
use crate::generate::scheduler::outbox::{Outbox, TokenEvent};
use crate::generate::{FinishReason, HostChoice, stats::Clock};
use crate::sampling::SamplingParams;

/// The prompt of an answer, and the conditions that end it.
#[derive(Debug, Default)]
pub struct SequenceRequest {
    pub prompt: Vec<u32>,
    pub sampling: SamplingParams,
    /// The host then chooses the tokens.
    pub choice: HostChoice,
    /// `None`: until an end token or the end of the context.
    pub max_new_tokens: Option<NonZeroUsize>,
    /// Ids that end the answer; they are not part of it.
    pub eos_ids: Vec<u32>,
}

/// A request with its state.
pub struct Sequence {
    /// Distinguishes it from all other requests.
    pub key: u64,
    pub outbox: Outbox,
    /// `None` while it is queued.
    id: Option<SequenceId>,
    strategy: Strategy,
    /// The prompt and the answer so far.
    context: Vec<u32>,
    prompt_tokens: usize,
    max_new_tokens: usize,
    eos_ids: Vec<u32>,
    /// Positions of submitted steps.
    submitted: usize,
    /// Positions of the prompt that the slot held already.
    cached_tokens: usize,
    /// Submitted steps whose token is not yet known.
    unread: usize,
    clock: Clock,
}

/// The rows that a sequence could have in the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    /// The row of the newest token.
    Decode,
    /// Rows of the prompt.
    Prompt(usize),
}

impl Sequence {
    /// Errors: unusable sampling values or adjustments.
    pub fn new(key: u64, request: SequenceRequest, outbox: Outbox) -> Result<Sequence> {
        Ok(Sequence {
            key,
            outbox,
            id: None,
            strategy: Strategy::new(&request.sampling, request.choice)?,
            prompt_tokens: request.prompt.len(),
            context: request.prompt,
            max_new_tokens: request.max_new_tokens.map_or(usize::MAX, NonZeroUsize::get),
            eos_ids: request.eos_ids,
            submitted: 0,
            cached_tokens: 0,
            unread: 0,
            clock: Clock::start(),
        })
    }

    /// Takes a slot that holds the first `held` tokens of the prompt.
    pub fn open(&mut self, id: SequenceId, held: usize) {
        (self.id, self.submitted, self.cached_tokens) = (Some(id), held, held);
    }

    /// Leaves its slot. Returns it with the known tokens whose keys and values it holds, or will
    /// hold after the steps in flight.
    pub fn leave(&mut self) -> Option<(SequenceId, Vec<u32>)> {
        let held = self.submitted.min(self.context.len());
        self.id.take().map(|id| (id, self.context[..held].to_vec()))
    }

    /// The prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.context[..self.prompt_tokens]
    }

    /// Its rows in the next step.
    pub fn wanted(&self, context_length: usize) -> Wanted {
        let prompt_rows = self.prompt_tokens.saturating_sub(self.submitted);
        let chosen = self.context.len() - self.prompt_tokens + self.unread;
        match self.id {
            None => Wanted::Nothing,
            Some(_) if prompt_rows > 0 => Wanted::Prompt(prompt_rows),
            // A full channel pauses the answer, so that its results need bounded memory.
            Some(_) if !self.outbox.is_empty() => Wanted::Nothing,
            Some(_) if self.unread > 0 && !self.strategy.runs_ahead() => Wanted::Nothing,
            Some(_) if chosen >= self.max_new_tokens => Wanted::Nothing,
            Some(_) if self.submitted >= context_length => Wanted::Nothing,
            Some(_) => Wanted::Decode,
        }
    }

    /// Its part of the next step, with `rows` rows of what it [wants](Self::wanted). Counts them as
    /// submitted.
    pub fn step(&mut self, id: SequenceId, rows: usize) -> SequenceStep<'_> {
        let first = self.submitted;
        self.submitted += rows;
        let is_prompt = first < self.prompt_tokens;
        let output = match self.submitted < self.prompt_tokens {
            true => StepOutput::None,
            false => self.strategy.output(),
        };
        self.unread += usize::from(output != StepOutput::None);
        let input = match !is_prompt && self.strategy.runs_ahead() {
            true => StepInput::Previous,
            false => StepInput::Tokens(&self.context[first..first + rows]),
        };
        SequenceStep { sequence: id, input, output }
    }

    /// Its slot.
    pub fn id(&self) -> Option<SequenceId> {
        self.id
    }

    /// Whether its prompt has run.
    pub fn is_prefilled(&self) -> bool {
        self.submitted >= self.prompt_tokens
    }

    /// Whether the next step must wait for the results of the last.
    pub fn waits_for_host(&self) -> bool {
        self.unread > 0 && !self.strategy.runs_ahead()
    }

    /// Does what the choice of the next token needs beside the device's results.
    ///
    /// Errors: a constraint fails.
    pub fn prepare(&mut self) -> Result<()> {
        if self.waits_for_host() { self.strategy.prepare() } else { Ok(()) }
    }

    /// Takes the result of its oldest step in flight and sends the token. Returns the reason if the
    /// answer ends.
    ///
    /// Errors: logits that are not numbers, a constraint that fails.
    pub fn apply(
        &mut self,
        result: StepResult,
        suppressed: &[u32],
        context_length: usize,
    ) -> Result<Option<FinishReason>> {
        if result == StepResult::None {
            return Ok(None);
        }
        self.unread = self.unread.saturating_sub(1);
        let chosen = self.strategy.token(result, &self.context, suppressed)?;
        self.clock.tick();
        if self.eos_ids.contains(&chosen.id) {
            return Ok(Some(FinishReason::Stop));
        }
        self.context.push(chosen.id);
        self.outbox.push(TokenEvent::Token { id: chosen.id, logprobs: chosen.logprobs });
        Ok(if chosen.is_last {
            Some(FinishReason::Stop)
        } else if self.context.len() - self.prompt_tokens >= self.max_new_tokens {
            Some(FinishReason::Length)
        } else if self.context.len() > context_length {
            Some(FinishReason::ContextFull)
        } else {
            None
        })
    }

    /// Sends the end of the answer. Returns the outbox, which may be full.
    pub fn finish(mut self, reason: FinishReason) -> Outbox {
        let stats = self.clock.stats(self.prompt_tokens, self.cached_tokens);
        let seed = self.strategy.seed();
        self.outbox.push(TokenEvent::Finished { reason, seed, stats });
        self.outbox
    }
}
