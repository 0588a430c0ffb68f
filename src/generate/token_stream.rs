//! The tokens of one answer, one at a time: prefill, then a step for each token.

use std::num::NonZeroUsize;

use serde::Serialize;

use crate::backend::{Backend, StepInput, StepOutput};
use crate::error::Result;
use crate::generate::{
    HostChoice, SequenceState, Stats, check_prompt, decode::Strategy, stats::Clock,
};
use crate::sampling::SamplingParams;

/// The prompt of an answer, and the conditions that end it.
pub struct Request<'a> {
    /// The whole context, earlier answers included. Tokens that the KV cache already holds do not
    /// run again.
    pub prompt: &'a [u32],
    pub sampling: SamplingParams,
    /// `None`: until an end token or the end of the context.
    pub max_new_tokens: Option<NonZeroUsize>,
    /// Ids that end the answer; they are not part of it.
    pub eos_ids: &'a [u32],
    /// Ids that are never chosen, as if their logits were −∞. Ids outside the vocabulary are
    /// ignored.
    pub suppressed_ids: &'a [u32],
    /// Called before every chunk of the prompt and after every token. If it returns true, the
    /// answer ends there.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model chose an end token.
    Stop,
    /// `max_new_tokens` were generated.
    Length,
    /// The context has no room for another token.
    ContextFull,
    /// The caller asked to stop.
    Cancelled,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Without the end token.
    pub tokens: Vec<u32>,
    pub finish_reason: FinishReason,
    /// The [`SamplingParams::seed`] that gives the same answer again; `None` for greedy answers.
    pub seed: Option<u64>,
    pub stats: Stats,
}

/// An answer in progress in a [`SequenceState`].
pub struct TokenStream {
    strategy: Strategy,
    /// The prompt and the answer so far.
    context: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    max_new_tokens: usize,
    eos_ids: Vec<u32>,
    suppressed_ids: Vec<u32>,
    is_prefilled: bool,
    finish_reason: Option<FinishReason>,
    clock: Clock,
}

impl TokenStream {
    /// An answer that has not begun. [`Request::cancelled`] is not kept, because every step takes
    /// it.
    ///
    /// Errors: an empty prompt or one that exceeds the context, unusable sampling values.
    pub fn new(backend: &dyn Backend, request: &Request<'_>) -> Result<TokenStream> {
        check_prompt(request.prompt.len(), backend.info().context_length)?;
        Ok(TokenStream {
            strategy: Strategy::new(&request.sampling, HostChoice::default())?,
            context: request.prompt.to_vec(),
            prompt_tokens: request.prompt.len(),
            cached_tokens: 0,
            max_new_tokens: request.max_new_tokens.map_or(usize::MAX, NonZeroUsize::get),
            eos_ids: request.eos_ids.to_vec(),
            suppressed_ids: request.suppressed_ids.to_vec(),
            is_prefilled: false,
            finish_reason: None,
            clock: Clock::start(),
        })
    }

    /// The same answer with other demands on the choice of its tokens.
    ///
    /// Errors: unusable adjustments.
    pub fn choosing(self, sampling: &SamplingParams, choice: HostChoice) -> Result<TokenStream> {
        Ok(TokenStream { strategy: Strategy::new(sampling, choice)?, ..self })
    }

    /// The next token, `None` after the last one. `cancelled` is called before every chunk of the
    /// prompt and after every token. If it returns true, the answer ends there.
    ///
    /// Errors: a failed step, all tokens suppressed. After an error the sequence is empty.
    pub async fn next(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<u32>> {
        let outcome = self.advance(backend, sequence, cancelled).await;
        if outcome.is_err() {
            self.finish_reason = Some(FinishReason::Cancelled);
            sequence.reset(backend);
        }
        outcome
    }

    /// Ends the answer here, as an end token would.
    pub fn stop(&mut self) {
        self.finish_reason.get_or_insert(FinishReason::Stop);
    }

    /// The answer so far. If it has not ended, it counts as cancelled.
    pub fn into_generation(mut self) -> Generation {
        Generation {
            stats: self.clock.stats(self.prompt_tokens, self.cached_tokens),
            tokens: self.context.split_off(self.prompt_tokens),
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
            seed: self.strategy.seed(),
        }
    }

    async fn advance(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<u32>> {
        if !self.is_prefilled && self.finish_reason.is_none() {
            self.prefill(backend, sequence, cancelled).await?;
        }
        if self.finish_reason.is_some() {
            return Ok(None);
        }
        let room = sequence.held().len() < backend.info().context_length;
        let more = self.answer_tokens() + 1 < self.max_new_tokens && room;
        let (context, suppressed) = (&self.context, &self.suppressed_ids);
        let chosen = self.strategy.choose(backend, sequence, context, suppressed, more).await?;
        let token = chosen.id;
        self.clock.tick();
        let is_end = self.eos_ids.contains(&token);
        if !is_end {
            self.context.push(token);
        }
        self.finish_reason = match (self.answer_tokens() >= self.max_new_tokens, room) {
            _ if is_end => Some(FinishReason::Stop),
            _ if cancelled() => Some(FinishReason::Cancelled),
            _ if chosen.is_last => Some(FinishReason::Stop),
            (true, _) => Some(FinishReason::Length),
            (false, false) => Some(FinishReason::ContextFull),
            (false, true) => None,
        };
        match self.finish_reason {
            Some(_) => sequence.take_back(backend).await?,
            None => self.strategy.go_on(backend, sequence, token)?,
        }
        Ok((!is_end).then_some(token))
    }

    fn answer_tokens(&self) -> usize {
        self.context.len() - self.prompt_tokens
    }

    /// Submits the new part of the prompt in chunks. The last chunk chooses the first token. At
    /// most two chunks are in flight, so that a cancellation soon takes effect.
    async fn prefill(
        &mut self,
        backend: &mut dyn Backend,
        sequence: &mut SequenceState,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        backend.suppress(&self.suppressed_ids)?;
        sequence.reuse(backend, &self.context).await?;
        self.cached_tokens = sequence.held().len();
        let rest = &self.context[self.cached_tokens..];
        let mut chunks = rest.chunks(backend.info().max_step_tokens.max(1)).peekable();
        while let Some(chunk) = chunks.next() {
            if cancelled() {
                self.finish_reason = Some(FinishReason::Cancelled);
                return sequence.settle(backend).await;
            }
            let output = match chunks.peek() {
                Some(_) => StepOutput::None,
                None => self.strategy.output(),
            };
            sequence.submit(backend, StepInput::Tokens(chunk), output)?;
            if sequence.in_flight() > 1 {
                sequence.read(backend).await?;
            }
        }
        self.is_prefilled = true;
        Ok(())
    }
}
