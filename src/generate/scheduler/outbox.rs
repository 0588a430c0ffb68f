//! The way of one request's results to its reader.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::mpsc::{self, Receiver, Sender};
use futures_core::Stream;
use web_time::Instant;

use crate::error::Error;
use crate::generate::{FinishReason, Stats};
use crate::sampling::TokenLogprobs;

/// A result of a request.
#[derive(Debug, Clone)]
pub enum TokenEvent {
    /// The next token of the answer, with log probabilities if the request wants them.
    Token { id: u32, logprobs: Option<Box<TokenLogprobs>> },
    /// The end of the answer. `seed` gives the same answer again; `None` for greedy answers.
    Finished { reason: FinishReason, seed: Option<u64>, stats: Stats },
    /// A step failed. All requests of the step get the same error.
    Failed(Arc<Error>),
}

/// The results of one request: tokens, then [`TokenEvent::Finished`] or [`TokenEvent::Failed`]. A
/// stream that ends without either was cancelled, because its reader was too slow or the scheduler
/// closed. Dropping it cancels the request.
#[derive(Debug)]
pub struct Tokens(Receiver<TokenEvent>);

impl Tokens {
    /// The next result if it has arrived.
    pub fn try_next(&mut self) -> Option<TokenEvent> {
        self.0.try_recv().ok()
    }
}

impl Stream for Tokens {
    type Item = TokenEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TokenEvent>> {
        Pin::new(&mut self.0).poll_next(context)
    }
}

/// The sending end. It never blocks: what the channel has no room for waits here.
pub struct Outbox {
    sender: Sender<TokenEvent>,
    waiting: VecDeque<TokenEvent>,
    /// The time since which the channel has been full.
    full_since: Option<Instant>,
}

impl Outbox {
    /// A channel with room for `capacity` results.
    pub fn new(capacity: usize) -> (Outbox, Tokens) {
        // A channel of futures has room for one more result than its buffer for each sender.
        let (sender, receiver) = mpsc::channel(capacity.saturating_sub(1));
        (Outbox { sender, waiting: VecDeque::new(), full_since: None }, Tokens(receiver))
    }

    pub fn push(&mut self, event: TokenEvent) {
        self.waiting.push_back(event);
        self.flush();
    }

    /// Sends what the channel has room for.
    pub fn flush(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => self.full_since = None,
                Err(error) if error.is_full() => {
                    self.waiting.push_front(error.into_inner());
                    self.full_since.get_or_insert_with(Instant::now);
                    return;
                }
                // The reader is gone.
                Err(_) => self.waiting.clear(),
            }
        }
    }

    /// Whether all results are on their way. A request whose channel is full pauses.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the reader is gone, or has taken nothing for `limit` while the channel was full.
    pub fn is_abandoned(&self, limit: Duration) -> bool {
        self.sender.is_closed() || self.full_since.is_some_and(|since| since.elapsed() >= limit)
    }
}
