//! Whole answers in one sequence of a backend.

use crate::backend::Backend;
use crate::error::Result;
use crate::generate::{Generation, Request, SequenceState, TokenStream};

/// Generates answers in one sequence of a backend. Keeps the KV cache between answers. So the next
/// answer of a conversation only runs new tokens.
pub struct Generator<'b> {
    backend: &'b mut dyn Backend,
    sequence: SequenceState,
}

impl<'b> Generator<'b> {
    /// A generator with an empty context.
    pub fn new(backend: &'b mut dyn Backend) -> Self {
        Generator { backend, sequence: SequenceState::default() }
    }

    /// The backend that runs the model.
    pub fn backend(&self) -> &dyn Backend {
        self.backend
    }

    /// Tokens whose keys and values are in the cache. A prompt that begins with them only runs its
    /// other tokens.
    pub fn held(&self) -> &[u32] {
        self.sequence.held()
    }

    /// Forgets the conversation.
    pub fn reset(&mut self) {
        self.sequence.reset(self.backend);
    }

    /// Generates one answer. `on_token` gets each of its tokens as soon as it is known.
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
        let mut stream = TokenStream::new(self.backend, request)?;
        let (backend, sequence) = (&mut *self.backend, &mut self.sequence);
        while let Some(token) = stream.next(backend, sequence, request.cancelled).await? {
            on_token(token);
        }
        Ok(stream.into_generation())
    }
}

impl Drop for Generator<'_> {
    fn drop(&mut self) {
        self.reset();
    }
}
