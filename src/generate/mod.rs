//! Prefill in chunks, then decode step by step. Knows tokens, nothing of kernels.

mod evaluate;
#[cfg(test)]
mod tests;

use std::{num::NonZeroUsize, time::Duration};

use serde::Serialize;
use web_time::Instant;

pub use self::evaluate::{Divergence, Perplexity, each_logits, each_logits_in_steps};
use crate::{
    Error, Result,
    backend::{Backend, SequenceId, SequenceStep, StepOutput, StepResult, StepTokens, Ticket},
    sampling::{Sampler, SamplingParams, suppress},
};

/// What to generate and when to stop.
pub struct Request<'a> {
    /// The whole context, earlier turns included; what the KV cache already holds is not run again.
    pub prompt: &'a [u32],
    pub sampling: SamplingParams,
    /// `None`: until an end token or the end of the context.
    pub max_new_tokens: Option<NonZeroUsize>,
    /// Ids that end the answer; they are not part of it.
    pub eos_ids: &'a [u32],
    /// Ids that are never chosen, as if their logits were −∞; those outside the vocabulary do not
    /// matter.
    pub suppressed_ids: &'a [u32],
    /// Asked before every chunk of the prompt and after every token; true ends the answer there.
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
    /// What [`SamplingParams::seed`] must be to get the same answer; `None` for greedy ones.
    pub seed: Option<u64>,
    pub stats: Stats,
}

/// Token counts and times of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    pub prompt_tokens: usize,
    /// Prompt tokens that the KV cache already held.
    pub cached_tokens: usize,
    /// Tokens that the model chose, the end token included.
    pub generated_tokens: usize,
    /// From the request to the first chosen token, `None` if there was none.
    pub time_to_first_token: Option<Duration>,
    /// From the first chosen token to the last.
    pub decode_time: Duration,
}

impl Stats {
    /// Prompt tokens run per second until the first token was there.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.prompt_tokens - self.cached_tokens, self.time_to_first_token?)
    }

    /// Tokens per second after the first one.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.generated_tokens.checked_sub(1)?, self.decode_time)
    }
}

/// Events per second; `None` where there is nothing to divide.
fn rate(count: usize, time: Duration) -> Option<f64> {
    (count > 0 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
}

/// Generates answers in one sequence of a backend. Keeps the KV cache between answers, so that the
/// next turn of a conversation runs only what is new.
pub struct Generator<'b> {
    backend: &'b mut dyn Backend,
    sequence: Option<SequenceId>,
    /// Tokens whose keys and values the sequence holds.
    held: Vec<u32>,
}

impl<'b> Generator<'b> {
    /// A generator with an empty context.
    pub fn new(backend: &'b mut dyn Backend) -> Self {
        Generator { backend, sequence: None, held: Vec::new() }
    }

    /// The backend that runs the model.
    pub fn backend(&self) -> &dyn Backend {
        self.backend
    }

    /// Tokens whose keys and values are there: a prompt that begins with them runs only its rest.
    pub fn held(&self) -> &[u32] {
        &self.held
    }

    /// Forgets the conversation.
    pub fn reset(&mut self) {
        if let Some(sequence) = self.sequence.take() {
            self.backend.close_sequence(sequence);
        }
        self.held.clear();
    }

    /// Generates one answer; `on_token` gets each of its tokens as soon as it is known.
    ///
    /// Errors: an empty prompt or one that exceeds the context, unusable sampling values, a
    /// failed step. After an error the context is empty.
    pub async fn generate(
        &mut self,
        request: &Request<'_>,
        on_token: &mut dyn FnMut(u32),
    ) -> Result<Generation> {
        let outcome = self.answer(request, on_token).await;
        if outcome.is_err() {
            self.reset();
        }
        outcome
    }

    async fn answer(
        &mut self,
        request: &Request<'_>,
        on_token: &mut dyn FnMut(u32),
    ) -> Result<Generation> {
        check_prompt(request.prompt.len(), self.backend.info().context_length)?;
        let mut choice = Choice::new(&request.sampling)?;
        self.backend.suppress(request.suppressed_ids)?;
        let mut clock = Clock::start();
        let sequence = self.reuse(request.prompt)?;
        let cached_tokens = self.held.len();
        let mut tokens = Vec::new();
        let finish_reason = match self.prefill(sequence, request, choice.output()).await? {
            Some(ticket) => {
                let mut answer = Answer { tokens: &mut tokens, on_token, clock: &mut clock };
                self.decode(sequence, ticket, request, &mut choice, &mut answer).await?
            }
            None => FinishReason::Cancelled,
        };
        let stats = clock.stats(request.prompt.len(), cached_tokens);
        Ok(Generation { tokens, finish_reason, seed: choice.seed(), stats })
    }

    /// Cuts the context back to what it shares with `prompt`, or starts a new one. At least the
    /// prompt's last token remains to be run, because its logits choose the first new token.
    fn reuse(&mut self, prompt: &[u32]) -> Result<SequenceId> {
        if let Some(sequence) = self.sequence {
            let shared = self
                .held
                .iter()
                .zip(&prompt[..prompt.len() - 1])
                .take_while(|(a, b)| a == b)
                .count();
            let kept = shared == self.backend.sequence_len(sequence)
                || self.backend.truncate(sequence, shared).is_ok();
            if kept {
                self.held.truncate(shared);
                return Ok(sequence);
            }
            self.reset();
        }
        let sequence = self.backend.open_sequence()?;
        self.sequence = Some(sequence);
        Ok(sequence)
    }

    /// Submits the rest of the prompt in chunks; the last one gives `output`. At most two chunks
    /// are under way, so that a cancellation takes effect soon. `None` if cancelled.
    async fn prefill(
        &mut self,
        sequence: SequenceId,
        request: &Request<'_>,
        output: StepOutput,
    ) -> Result<Option<Ticket>> {
        let rest = &request.prompt[self.held.len()..];
        let mut chunks = rest.chunks(self.backend.info().max_step_tokens.max(1)).peekable();
        let mut running: Option<Ticket> = None;
        while let Some(chunk) = chunks.next() {
            if (request.cancelled)() {
                if let Some(ticket) = running {
                    self.backend.read(ticket).await?;
                }
                return Ok(None);
            }
            let output = if chunks.peek().is_some() { StepOutput::None } else { output };
            let ticket = self.submit(sequence, StepTokens::Host(chunk), output)?;
            self.held.extend(chunk);
            if let Some(before) = running.replace(ticket) {
                self.backend.read(before).await?;
            }
        }
        Ok(running)
    }

    /// Chooses tokens until something ends the answer. Where the device chooses, the step after a
    /// token is submitted before the token is read.
    async fn decode(
        &mut self,
        sequence: SequenceId,
        mut ticket: Ticket,
        request: &Request<'_>,
        choice: &mut Choice,
        answer: &mut Answer<'_>,
    ) -> Result<FinishReason> {
        let max_new = request.max_new_tokens.map_or(usize::MAX, NonZeroUsize::get);
        let context_length = self.backend.info().context_length;
        let mut context = request.prompt.to_vec();
        loop {
            let room = self.held.len() < context_length;
            let more = answer.tokens.len() + 1 < max_new && room;
            let ahead = match choice {
                Choice::Greedy | Choice::Device(_) if more => {
                    Some(self.submit(sequence, StepTokens::Previous, choice.output())?)
                }
                _ => None,
            };
            let token = choice.read(self.backend, ticket, &context, request.suppressed_ids).await?;
            answer.clock.tick();
            if ahead.is_some() {
                self.held.push(token);
            }
            let stop = request.eos_ids.contains(&token);
            if !stop {
                context.push(token);
                answer.push(token);
            }
            let finish = match (answer.tokens.len() >= max_new, room) {
                _ if stop => Some(FinishReason::Stop),
                _ if (request.cancelled)() => Some(FinishReason::Cancelled),
                (true, _) => Some(FinishReason::Length),
                (false, false) => Some(FinishReason::ContextFull),
                (false, true) => None,
            };
            if let Some(finish) = finish {
                return self.drop_step(sequence, ahead).await.map(|()| finish);
            }
            ticket = match ahead {
                Some(ahead) => ahead,
                None => {
                    let next =
                        self.submit(sequence, StepTokens::Host(&[token]), choice.output())?;
                    self.held.push(token);
                    next
                }
            };
        }
    }

    /// Takes back the step that was submitted before its token turned out to be the last.
    async fn drop_step(&mut self, sequence: SequenceId, ahead: Option<Ticket>) -> Result<()> {
        let Some(ticket) = ahead else { return Ok(()) };
        self.backend.read(ticket).await?;
        // A cache that cannot go back keeps the position; the next prompt is compared with it.
        let len = self.held.len() - 1;
        if self.backend.truncate(sequence, len).is_ok() {
            self.held.truncate(len);
        }
        Ok(())
    }

    fn submit(
        &mut self,
        sequence: SequenceId,
        tokens: StepTokens<'_>,
        output: StepOutput,
    ) -> Result<Ticket> {
        self.backend.submit(&[SequenceStep { sequence, tokens, output }])
    }
}

impl Drop for Generator<'_> {
    fn drop(&mut self) {
        self.reset();
    }
}

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

/// How the next token is chosen, and where.
enum Choice {
    /// On the device, which goes on without waiting for the host…
    Greedy,
    /// …and so it does where it is told what to draw.
    Device(Box<Sampler>),
    Host(Box<Sampler>),
}

impl Choice {
    fn new(params: &SamplingParams) -> Result<Choice> {
        let sampler = Box::new(Sampler::new(*params)?);
        Ok(match params.temperature == 0.0 && params.repetition_penalty == 1.0 {
            true => Choice::Greedy,
            false if params.fit_device() => Choice::Device(sampler),
            false => Choice::Host(sampler),
        })
    }

    /// What the next step shall give: asked once for each token, in their order.
    fn output(&mut self) -> StepOutput {
        match self {
            Choice::Greedy => StepOutput::Greedy,
            Choice::Device(sampler) => StepOutput::Sample(sampler.draw()),
            Choice::Host(_) => StepOutput::LastLogits,
        }
    }

    fn seed(&self) -> Option<u64> {
        match self {
            Choice::Greedy => None,
            Choice::Device(sampler) | Choice::Host(sampler) => Some(sampler.seed()),
        }
    }

    /// Waits for a step of one sequence and gives its token, which follows `context`.
    async fn read(
        &mut self,
        backend: &mut dyn Backend,
        ticket: Ticket,
        context: &[u32],
        suppressed: &[u32],
    ) -> Result<u32> {
        match (self, backend.read(ticket).await?.as_mut_slice()) {
            (Choice::Greedy | Choice::Device(_), [StepResult::Token(token)]) => Ok(*token),
            (Choice::Host(sampler), [StepResult::Logits(logits)]) => {
                suppress(logits, suppressed);
                sampler.sample(logits, context)
            }
            _ => {
                Err(Error::Device("the backend answered a step with another kind of result".into()))
            }
        }
    }
}

/// The growing answer and who hears of it.
struct Answer<'a> {
    tokens: &'a mut Vec<u32>,
    on_token: &'a mut dyn FnMut(u32),
    clock: &'a mut Clock,
}

impl Answer<'_> {
    fn push(&mut self, token: u32) {
        self.tokens.push(token);
        (self.on_token)(token);
    }
}

/// When tokens came.
struct Clock {
    start: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    ticks: usize,
}

impl Clock {
    fn start() -> Clock {
        Clock { start: Instant::now(), first: None, last: None, ticks: 0 }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.ticks += 1;
    }

    fn stats(&self, prompt_tokens: usize, cached_tokens: usize) -> Stats {
        Stats {
            prompt_tokens,
            cached_tokens,
            generated_tokens: self.ticks,
            time_to_first_token: self.first.map(|first| first - self.start),
            decode_time: self
                .last
                .zip(self.first)
                .map(|(last, first)| last - first)
                .unwrap_or_default(),
        }
    }
}
