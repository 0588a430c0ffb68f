//! Many requests on one backend: a step has rows of all running sequences.

mod outbox;
mod prefixes;
mod sequence;
mod share;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::outbox::Outbox;
pub use self::outbox::{TokenEvent, Tokens};
use self::prefixes::Prefixes;
pub use self::sequence::SequenceRequest;
use self::sequence::{Sequence, Wanted};
use self::share::share;
use crate::backend::{Backend, BackendInfo, SequenceStep, StepResult, Ticket};
use crate::error::{Error, Result};
use crate::generate::{FinishReason, check_prompt};

/// Limits of a [`Scheduler`]. The backend limits the sequences that run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// Most requests that wait for a slot.
    pub max_queued: usize,
    /// Most prompt tokens of a step in which other sequences decode.
    pub prompt_chunk: usize,
    /// Results of a request that its reader has not taken. A full channel pauses the request.
    pub channel_capacity: usize,
    /// A request whose channel is full for this time is cancelled.
    pub reader_timeout: Duration,
    /// Ended answers stay in their slots until other requests need these. A prompt that begins like
    /// one of them only runs its other tokens.
    pub keep_prefixes: bool,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        SchedulerOptions {
            max_queued: 256,
            prompt_chunk: 128,
            channel_capacity: 64,
            reader_timeout: Duration::from_secs(30),
            keep_prefixes: true,
        }
    }
}

/// A request that the scheduler does not take.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// All slots are taken and the queue is full. The request may come again later.
    #[error("{queued} requests wait already, and no more are taken")]
    QueueFull { queued: usize },
    /// The prompt does not fit.
    #[error("the prompt has {tokens} tokens, but the context holds {context_length}")]
    PromptTooLong { tokens: usize, context_length: usize },
    /// An empty prompt, a token outside the vocabulary, or unusable values of the choice.
    #[error(transparent)]
    Invalid(#[from] Error),
}

/// Counts of a scheduler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait for a slot.
    pub queued: usize,
    /// Requests with a slot.
    pub running: usize,
    /// Steps so far.
    pub steps: u64,
    /// Prompt tokens that ran so far.
    pub prompt_tokens: u64,
    /// Prompt tokens so far that did not run, because their keys and values were kept.
    pub cached_tokens: u64,
    /// Tokens that were chosen so far.
    pub generated_tokens: u64,
    /// Requests so far that were cancelled, or whose reader was too slow.
    pub cancelled: u64,
}

/// A submitted step: for each row of results the request's key.
struct InFlight {
    ticket: Ticket,
    keys: Vec<u64>,
}

/// Runs many requests on a backend that it owns.
///
/// Requests wait in order of arrival until a slot of the KV cache is free. Every step has a row of
/// each decoding sequence, and rows of prompts that share the rest. Where the device chooses all
/// tokens, a step is submitted before the last one is read. No step waits for a reader.
pub struct Scheduler {
    backend: Box<dyn Backend>,
    info: BackendInfo,
    options: SchedulerOptions,
    suppressed: Vec<u32>,
    queue: VecDeque<Sequence>,
    running: Vec<Sequence>,
    prefixes: Prefixes,
    /// Of ended answers, until their readers have taken the rest.
    closing: Vec<Outbox>,
    in_flight: Option<InFlight>,
    next_key: u64,
    load: Load,
}

impl Scheduler {
    /// A scheduler without requests. `suppressed_ids` are never chosen.
    ///
    /// Errors: the whole vocabulary is suppressed.
    pub fn new(
        mut backend: Box<dyn Backend>,
        suppressed_ids: &[u32],
        options: SchedulerOptions,
    ) -> Result<Scheduler> {
        backend.suppress(suppressed_ids)?;
        Ok(Scheduler {
            info: backend.info(),
            backend,
            options,
            suppressed: suppressed_ids.to_vec(),
            queue: VecDeque::new(),
            running: Vec::new(),
            prefixes: Prefixes::default(),
            closing: Vec::new(),
            in_flight: None,
            next_key: 0,
            load: Load::default(),
        })
    }

    /// The backend's limits and facts.
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// The present counts.
    pub fn load(&self) -> Load {
        Load { queued: self.queue.len(), running: self.running.len(), ..self.load }
    }

    /// Whether a step would do nothing, now and later, unless a request arrives.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.running.is_empty()
            && self.closing.is_empty()
            && self.in_flight.is_none()
    }

    /// Takes a request. Its results come from the steps that follow.
    ///
    /// Errors: see [`Refused`].
    pub fn submit(&mut self, request: SequenceRequest) -> Result<Tokens, Refused> {
        let (tokens, context_length) = (request.prompt.len(), self.info.context_length);
        if tokens > context_length {
            return Err(Refused::PromptTooLong { tokens, context_length });
        }
        check_prompt(tokens, context_length)?;
        let vocab = self.backend.config().vocab_size;
        if let Some(token) = request.prompt.iter().find(|&&token| token as usize >= vocab) {
            let reason = format!("token {token} is not in the vocabulary of {vocab}");
            return Err(Error::Input(reason).into());
        }
        let free = self.info.max_sequences.saturating_sub(self.running.len());
        if self.queue.len() >= free + self.options.max_queued {
            return Err(Refused::QueueFull { queued: self.queue.len() });
        }
        let (outbox, tokens) = Outbox::new(self.options.channel_capacity);
        self.queue.push_back(Sequence::new(self.next_key, request, outbox)?);
        self.next_key += 1;
        Ok(tokens)
    }

    /// Submits a step, and reads the one before. Returns false if there was nothing to submit or
    /// read, such as when all readers are slow.
    ///
    /// Errors: a failed step. Its requests have then failed with the same error.
    pub async fn step(&mut self) -> Result<bool, Arc<Error>> {
        self.drop_abandoned();
        if let Err(error) = self.admit() {
            return Err(self.fail(error).await);
        }
        let submitted = match self.submit_step() {
            Ok(submitted) => submitted,
            Err(error) => return Err(self.fail(error).await),
        };
        let before = self.in_flight.take();
        let worked = before.is_some() || submitted.is_some();
        self.in_flight = submitted;
        if let Some(step) = before {
            self.read(step).await?;
        }
        self.prepare();
        if self.running.iter().any(Sequence::waits_for_host)
            && let Some(step) = self.in_flight.take()
        {
            self.read(step).await?;
        }
        Ok(worked)
    }

    /// Ends all requests. Their streams end without [`TokenEvent::Finished`].
    pub fn cancel_all(&mut self) {
        self.load.cancelled += (self.queue.len() + self.running.len()) as u64;
        for at in (0..self.running.len()).rev() {
            self.remove(at);
        }
        self.queue.clear();
        self.closing.clear();
    }

    /// Ends the requests whose readers are gone or too slow, and frees their slots.
    fn drop_abandoned(&mut self) {
        let limit = self.options.reader_timeout;
        let before = self.queue.len() + self.running.len();
        self.queue.retain(|sequence| !sequence.outbox.is_abandoned(limit));
        for at in (0..self.running.len()).rev() {
            self.running[at].outbox.flush();
            if self.running[at].outbox.is_abandoned(limit) {
                self.remove(at);
            }
        }
        self.load.cancelled += (before - self.queue.len() - self.running.len()) as u64;
        self.closing.retain_mut(|outbox| {
            outbox.flush();
            !outbox.is_empty() && !outbox.is_abandoned(limit)
        });
    }

    /// Removes a running sequence. Its slot is free, or kept for prompts that begin like it.
    fn remove(&mut self, at: usize) -> Sequence {
        let mut sequence = self.running.remove(at);
        if let Some((id, held)) = sequence.leave() {
            match self.options.keep_prefixes {
                true => self.prefixes.keep(self.backend.as_mut(), id, held),
                false => self.backend.close_sequence(id),
            }
        }
        sequence
    }

    /// Gives free slots to the requests that have waited longest.
    fn admit(&mut self) -> Result<()> {
        while self.running.len() < self.info.max_sequences
            && let Some(mut sequence) = self.queue.pop_front()
        {
            let used = self.running.len() + self.prefixes.count();
            let has_free = used < self.info.max_sequences;
            let backend = self.backend.as_mut();
            let taken = self.prefixes.take(backend, sequence.prompt(), has_free);
            if let Ok((id, held)) = taken {
                self.load.cached_tokens += held as u64;
                sequence.open(id, held);
            }
            self.running.push(sequence);
            taken?;
        }
        Ok(())
    }

    /// The rows of each running sequence in the next step.
    fn plan(&self) -> Vec<usize> {
        let context_length = self.info.context_length;
        let wanted: Vec<Wanted> =
            self.running.iter().map(|sequence| sequence.wanted(context_length)).collect();
        let decodes = wanted.iter().filter(|&&wanted| wanted == Wanted::Decode).count();
        let room = self.info.max_step_tokens.saturating_sub(decodes);
        let budget = if decodes > 0 { room.min(self.options.prompt_chunk.max(1)) } else { room };
        let prompts: Vec<usize> = wanted
            .iter()
            .filter_map(|wanted| match wanted {
                Wanted::Prompt(rows) => Some(*rows),
                Wanted::Nothing | Wanted::Decode => None,
            })
            .collect();
        let mut shares = share(budget, &prompts, self.load.steps as usize).into_iter();
        wanted
            .iter()
            .map(|wanted| match wanted {
                Wanted::Nothing => 0,
                Wanted::Decode => 1,
                Wanted::Prompt(_) => shares.next().unwrap_or(0),
            })
            .collect()
    }

    fn submit_step(&mut self) -> Result<Option<InFlight>> {
        let rows = self.plan();
        let mut keys = Vec::new();
        let mut step: Vec<SequenceStep<'_>> = Vec::new();
        for (sequence, &rows) in self.running.iter_mut().zip(&rows) {
            let Some(id) = sequence.id().filter(|_| rows > 0) else { continue };
            keys.push(sequence.key);
            if !sequence.is_prefilled() {
                self.load.prompt_tokens += rows as u64;
            }
            step.push(sequence.step(id, rows));
        }
        if step.is_empty() {
            return Ok(None);
        }
        let ticket = self.backend.submit(&step)?;
        self.load.steps += 1;
        Ok(Some(InFlight { ticket, keys }))
    }

    /// Reads a step and passes its tokens on.
    async fn read(&mut self, step: InFlight) -> Result<(), Arc<Error>> {
        let results = match self.backend.read(step.ticket).await {
            Ok(results) => results,
            Err(error) => return Err(self.fail(error).await),
        };
        for (key, result) in step.keys.into_iter().zip(results) {
            // The request may have ended since the step was submitted.
            let Some(at) = self.running.iter().position(|sequence| sequence.key == key) else {
                continue;
            };
            let sequence = &mut self.running[at];
            let tokens = u64::from(result != StepResult::None);
            match sequence.apply(result, &self.suppressed, self.info.context_length) {
                Ok(None) => {}
                Ok(Some(reason)) => self.finish(at, reason),
                Err(error) => self.fail_one(at, error),
            }
            self.load.generated_tokens += tokens;
        }
        Ok(())
    }

    /// Prepares the choices of the host while the device computes their logits.
    fn prepare(&mut self) {
        let mut at = 0;
        while let Some(sequence) = self.running.get_mut(at) {
            match sequence.prepare() {
                Ok(()) => at += 1,
                Err(error) => self.fail_one(at, error),
            }
        }
    }

    /// Ends one request with an error. The others are not affected.
    fn fail_one(&mut self, at: usize, error: Error) {
        let mut sequence = self.remove(at);
        sequence.outbox.push(TokenEvent::Failed(Arc::new(error)));
        self.closing.push(sequence.outbox);
    }

    fn finish(&mut self, at: usize, reason: FinishReason) {
        let outbox = self.remove(at).finish(reason);
        if !outbox.is_empty() {
            self.closing.push(outbox);
        }
    }

    /// Ends all running requests with an error, because a failed step leaves none of them whole.
    async fn fail(&mut self, error: Error) -> Arc<Error> {
        let error = Arc::new(error);
        // A result that is never read would be kept.
        if let Some(step) = self.in_flight.take() {
            let _ = self.backend.read(step.ticket).await;
        }
        self.prefixes.clear(self.backend.as_mut());
        for mut sequence in self.running.drain(..) {
            if let Some((id, _)) = sequence.leave() {
                self.backend.close_sequence(id);
            }
            sequence.outbox.push(TokenEvent::Failed(Arc::clone(&error)));
            self.closing.push(sequence.outbox);
        }
        error
    }
}
