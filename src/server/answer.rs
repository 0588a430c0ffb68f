//! From a prompt to the pieces of its answers.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};

use super::app::App;
use super::error::ApiError;
use super::generation::Generation;
use crate::generate::{FinishReason, HostChoice, SequenceRequest, Stats, TokenEvent, Tokens};
use crate::sampling::SamplingParams;
use crate::text::{AnswerEvent, Prompt, StopTexts};

/// A piece of an answer.
#[derive(Debug)]
pub enum Piece {
    Event(AnswerEvent),
    /// The end: nothing follows.
    End {
        reason: FinishReason,
        stats: Stats,
    },
    /// The answer failed: nothing follows.
    Failed(ApiError),
}

/// The pieces of several answers, each with the answer's index.
pub type Pieces = BoxStream<'static, (u32, Piece)>;

/// Starts all answers to `prompts`: `choices` to each, in this order. Dropping the stream cancels
/// them.
///
/// Errors: the engine refuses one of them. None then runs.
pub async fn start(
    app: &Arc<App>,
    prompts: Vec<Prompt>,
    generation: &Generation,
) -> Result<Pieces, ApiError> {
    let sampling = generation.options.sampling(app.processor.sampling())?;
    let mut answers = Vec::new();
    for prompt in prompts.into_iter().map(Arc::new) {
        for choice in 0..u64::from(generation.choices) {
            // Answers to one prompt differ, and each can be repeated.
            let seed = sampling.seed.map(|seed| seed.wrapping_add(choice));
            let request = SequenceRequest {
                prompt: prompt.tokens.clone(),
                sampling: SamplingParams { seed, ..sampling },
                choice: HostChoice::default(),
                max_new_tokens: generation.options.max_new_tokens,
                eos_ids: app.processor.eos_ids(&prompt).to_vec(),
            };
            let tokens = app.engine.submit(request).await?;
            let stop = StopTexts::new(generation.stop.clone());
            let index = answers.len() as u32;
            let pieces = pieces(Arc::clone(app), Arc::clone(&prompt), tokens, stop);
            answers.push(pieces.map(move |piece| (index, piece)).boxed());
        }
    }
    Ok(select_all(answers).boxed())
}

/// The pieces of one answer.
fn pieces(
    app: Arc<App>,
    prompt: Arc<Prompt>,
    mut tokens: Tokens,
    mut stop: StopTexts,
) -> impl futures_util::Stream<Item = Piece> + Send {
    async_stream::stream! {
        let mut parser = Some(app.processor.parser(&prompt));
        let mut count = 0;
        let (reason, stats) = loop {
            let (events, end) = match tokens.next().await {
                Some(TokenEvent::Token { id, .. }) => {
                    count += 1;
                    (parser.as_mut().map(|parser| parser.push(id)).unwrap_or_default(), None)
                }
                Some(TokenEvent::Finished { reason, stats, .. }) => {
                    let rest = parser.take().map(|parser| parser.finish()).unwrap_or_default();
                    (rest, Some((reason, stats)))
                }
                Some(TokenEvent::Failed(error)) => {
                    yield Piece::Failed(ApiError::failed(&error));
                    return;
                }
                None => {
                    yield Piece::Failed(ApiError::unavailable("the answer was cancelled", 5));
                    return;
                }
            };
            let mut found = false;
            for event in events {
                match event {
                    AnswerEvent::Content(text) => {
                        let (clear, stops) = stop.push(&text);
                        if !clear.is_empty() {
                            yield Piece::Event(AnswerEvent::Content(clear));
                        }
                        if stops {
                            found = true;
                            break;
                        }
                    }
                    event => {
                        // A stop text is within one piece of content.
                        let rest = stop.flush();
                        if !rest.is_empty() {
                            yield Piece::Event(AnswerEvent::Content(rest));
                        }
                        yield Piece::Event(event);
                    }
                }
            }
            if found {
                let (prompt_tokens, generated_tokens) = (prompt.tokens.len(), count);
                let stats = Stats { prompt_tokens, generated_tokens, ..Stats::default() };
                break (FinishReason::Stop, stats);
            }
            if let Some(end) = end {
                break end;
            }
        };
        // Frees the slot of an answer that a stop text has ended.
        drop(tokens);
        let rest = stop.flush();
        if !rest.is_empty() {
            yield Piece::Event(AnswerEvent::Content(rest));
        }
        if let Some(time) = stats.time_to_first_token {
            app.metrics.first_token(time);
        }
        yield Piece::End { reason, stats };
    }
}

/// Counts of tokens for the client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
}

impl Usage {
    /// Adds an answer. The prompt of several answers counts once.
    pub fn add(&mut self, stats: &Stats) {
        self.completion_tokens += stats.generated_tokens;
    }

    pub fn json(self) -> serde_json::Value {
        serde_json::json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        })
    }
}

/// OpenAI's name of the reason.
pub fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::Cancelled => "stop",
        FinishReason::Length | FinishReason::ContextFull => "length",
    }
}
