//! One sequence of a backend: the tokens that its KV cache holds, and its steps in flight.

use std::collections::VecDeque;

use crate::backend::{
    Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult, Ticket,
};
use crate::error::{Error, Result};

/// The state of a conversation on a backend. It is kept between answers, so that the next one only
/// runs new tokens. Every call takes the backend on which the sequence was opened.
#[derive(Debug, Default)]
pub struct SequenceState {
    /// `None` until the first prompt.
    id: Option<SequenceId>,
    held: Vec<u32>,
    /// Steps that were submitted and not yet read, the oldest first.
    in_flight: VecDeque<Ticket>,
}

impl SequenceState {
    /// Tokens whose keys and values are in the cache. A prompt that begins with them only runs its
    /// other tokens.
    pub fn held(&self) -> &[u32] {
        &self.held
    }

    /// Frees the sequence and forgets its tokens. Steps in flight still finish.
    pub fn reset(&mut self, backend: &mut dyn Backend) {
        if let Some(id) = self.id.take() {
            backend.close_sequence(id);
        }
        self.held.clear();
    }

    /// Cuts the context back to its common beginning with `prompt`, or starts a new one. At least
    /// the prompt's last token must run, because its logits choose the first new token.
    ///
    /// Errors: no sequence is free.
    pub(super) async fn reuse(&mut self, backend: &mut dyn Backend, prompt: &[u32]) -> Result<()> {
        // Steps of a failed or dropped answer may be in flight. Their results are read and ignored.
        while let Some(ticket) = self.in_flight.pop_front() {
            let _ = backend.read(ticket).await;
        }
        if let Some(id) = self.id {
            let pairs = self.held.iter().zip(&prompt[..prompt.len() - 1]);
            let shared = pairs.take_while(|(a, b)| a == b).count();
            if shared == backend.sequence_len(id) || backend.truncate(id, shared).is_ok() {
                self.held.truncate(shared);
                return Ok(());
            }
            self.reset(backend);
        }
        self.id = Some(backend.open_sequence()?);
        Ok(())
    }

    /// Submits a step. Tokens from the host count as held immediately. A token that the device
    /// chose counts after [`Self::push`].
    pub(super) fn submit(
        &mut self,
        backend: &mut dyn Backend,
        input: StepInput<'_>,
        output: StepOutput,
    ) -> Result<()> {
        let sequence = self.id.ok_or_else(|| Error::Input("the sequence is not open".into()))?;
        let ticket = backend.submit(&[SequenceStep { sequence, input, output }])?;
        self.in_flight.push_back(ticket);
        if let StepInput::Tokens(tokens) = input {
            self.held.extend(tokens);
        }
        Ok(())
    }

    /// Records the token of a submitted step that the device chose.
    pub(super) fn push(&mut self, token: u32) {
        self.held.push(token);
    }

    /// Steps in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Waits for the oldest step in flight.
    pub(super) async fn read(&mut self, backend: &mut dyn Backend) -> Result<StepResult> {
        let results = match self.in_flight.pop_front() {
            Some(ticket) => backend.read(ticket).await?,
            None => Vec::new(),
        };
        match <[StepResult; 1]>::try_from(results) {
            Ok([result]) => Ok(result),
            Err(_) => Err(Error::Device("the backend answered no step of one sequence".into())),
        }
    }

    /// Waits for all steps in flight.
    pub(super) async fn settle(&mut self, backend: &mut dyn Backend) -> Result<()> {
        while self.in_flight() > 0 {
            self.read(backend).await?;
        }
        Ok(())
    }

    /// Takes back a step that was submitted early, if its token was the last of the answer.
    pub(super) async fn take_back(&mut self, backend: &mut dyn Backend) -> Result<()> {
        if self.in_flight() == 0 {
            return Ok(());
        }
        self.settle(backend).await?;
        // A cache that cannot be cut back keeps the position. The next prompt is compared with it.
        let len = self.held.len() - 1;
        if self.id.is_some_and(|id| backend.truncate(id, len).is_ok()) {
            self.held.truncate(len);
        }
        Ok(())
    }
}
