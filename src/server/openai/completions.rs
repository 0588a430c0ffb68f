//! `/v1/completions`

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::generation::Delivery;
use super::{finish_reason, form, generation, usage_json};
use crate::server::app::{App, new_id, seconds};
use crate::server::chat::{self, ChatEvent, Generation, Piece, Pieces, Usage};
use crate::server::error::{ApiError, Dialect};
use crate::server::fields::Fields;
use crate::server::sse::{self, SseEvent};
use crate::text::Prompt;

/// Tokens of an answer unless the request says otherwise, as in OpenAI's API.
const DEFAULT_TOKENS: NonZeroUsize = NonZeroUsize::new(16).unwrap();
/// Most prompts of a request.
const MOST_PROMPTS: usize = 64;

pub async fn completions(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let delivery = Delivery::parse(&fields)?;
    let mut generation = generation::parse(&fields)?;
    generation.options.max_new_tokens.get_or_insert(DEFAULT_TOKENS);
    generation.logprobs = form::completion_logprobs(&fields)?;
    refuse_unsupported(&fields, &generation)?;
    let inputs = Input::parse(fields.take("prompt"))?;
    let prompts = prompts(&app, inputs).await?;
    let count = prompts.len() * generation.choices as usize;
    let prompt_tokens = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    let mut usage = Usage { prompt_tokens, ..Usage::default() };
    let pieces = chat::start(&app, prompts, &generation).await?;
    let frame = Frame { id: new_id("cmpl-"), created: seconds(), app };
    if delivery.stream {
        return Ok(sse::response(stream(frame, pieces, delivery, usage)));
    }
    let answers = chat::collect(pieces, count).await?;
    answers.iter().for_each(|answer| usage.add_answer(&answer.end.usage));
    let choices = (0..).zip(&answers);
    let choices = choices.map(|(index, answer)| {
        let mut choice = choice(index, &answer.text(), Some(finish_reason(&answer.end.reason)));
        if !answer.tokens.is_empty() {
            choice["logprobs"] = form::completion_logprobs_json(&frame.app, &answer.tokens);
        }
        choice
    });
    let mut answer = frame.chunk(choices.collect());
    answer["usage"] = usage_json(&usage);
    Ok(axum::Json(answer).into_response())
}

fn refuse_unsupported(fields: &Fields, generation: &Generation) -> Result<(), ApiError> {
    if fields.flag("echo")?.unwrap_or(false) {
        return Err(ApiError::unsupported("echo", "the prompt in the answer"));
    }
    if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::unsupported("suffix", "a text after the answer"));
    }
    match fields.whole("best_of", 1..=u64::from(u32::MAX))? {
        Some(best) if best > u64::from(generation.choices) => {
            Err(ApiError::unsupported("best_of", "a choice of the best answers"))
        }
        _ => Ok(()),
    }
}

/// A prompt as a client sends it.
enum Input {
    Text(String),
    Tokens(Vec<u32>),
}

impl Input {
    fn parse(prompt: Option<Value>) -> Result<Vec<Input>, ApiError> {
        let wrong = || {
            let message = "prompt must be a string, a list of strings, a list of token ids, or a \
                           list of such lists";
            ApiError::bad_field("prompt", message)
        };
        let inputs = match prompt {
            None => return Err(ApiError::bad_field("prompt", "prompt is missing")),
            Some(Value::String(text)) => Some(vec![Input::Text(text)]),
            Some(Value::Array(items)) if items.iter().all(Value::is_number) => {
                tokens(&items).map(|tokens| vec![Input::Tokens(tokens)])
            }
            Some(Value::Array(items)) => items.into_iter().map(Input::one).collect(),
            Some(_) => None,
        };
        match inputs.ok_or_else(wrong)? {
            inputs if inputs.len() > MOST_PROMPTS => {
                let message = format!("prompt has more than {MOST_PROMPTS} prompts");
                Err(ApiError::bad_field("prompt", message))
            }
            inputs => Ok(inputs),
        }
    }

    fn one(item: Value) -> Option<Input> {
        match item {
            Value::String(text) => Some(Input::Text(text)),
            Value::Array(items) => tokens(&items).map(Input::Tokens),
            _ => None,
        }
    }
}

fn tokens(items: &[Value]) -> Option<Vec<u32>> {
    items.iter().map(|item| item.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

async fn prompts(app: &Arc<App>, inputs: Vec<Input>) -> Result<Vec<Prompt>, ApiError> {
    let app = Arc::clone(app);
    let made = tokio::task::spawn_blocking(move || {
        let prompt = |input| match input {
            Input::Text(text) => app.processor.raw(&text),
            Input::Tokens(tokens) => Ok(Prompt { tokens, is_chat: false }),
        };
        inputs.into_iter().map(prompt).collect::<Result<Vec<Prompt>, _>>()
    });
    Ok(made.await.map_err(|_| ApiError::internal("the prompt could not be made"))??)
}

/// What all chunks of an answer have.
struct Frame {
    id: String,
    created: u64,
    app: Arc<App>,
}

impl Frame {
    fn chunk(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.app.options.model,
            "choices": choices,
        })
    }
}

fn choice(index: u32, text: &str, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason})
}

fn stream(
    frame: Frame,
    mut pieces: Pieces,
    delivery: Delivery,
    mut usage: Usage,
) -> impl Stream<Item = SseEvent> + Send {
    async_stream::stream! {
        while let Some((index, piece)) = pieces.next().await {
            match piece {
                // A raw prompt's answer is only text.
                Piece::Event(ChatEvent::Text(text)) => {
                    yield SseEvent::Data(frame.chunk(vec![choice(index, &text, None)]));
                }
                Piece::Event(_) => {}
                Piece::Token(token) => {
                    let mut choice = choice(index, "", None);
                    choice["logprobs"] = form::completion_logprobs_json(&frame.app, &[token]);
                    yield SseEvent::Data(frame.chunk(vec![choice]));
                }
                Piece::End(end) => {
                    usage.add_answer(&end.usage);
                    let reason = Some(finish_reason(&end.reason));
                    yield SseEvent::Data(frame.chunk(vec![choice(index, "", reason)]));
                }
                Piece::Failed(error) => {
                    yield SseEvent::Data(error.body(Dialect::OpenAi));
                    return;
                }
            }
        }
        if delivery.include_usage {
            let mut last = frame.chunk(Vec::new());
            last["usage"] = usage_json(&usage);
            yield SseEvent::Data(last);
        }
        yield SseEvent::Done;
    }
}
