//! `/v1/chat/completions`

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::generation::Delivery;
use super::tools::{tool_choice, tools};
use super::{finish_reason, form, generation, messages, usage_json};
use crate::server::app::{App, new_id, seconds};
use crate::server::chat::{
    self, Answer, ChatEvent, ChatRequest, Item, Piece, Pieces, TokenChoice, Usage,
};
use crate::server::error::{ApiError, Dialect};
use crate::server::fields::Fields;
use crate::server::sse::{self, SseEvent};

pub async fn chat(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let delivery = Delivery::parse(&fields)?;
    let mut request = request(&mut fields)?;
    let prompt = chat::prompt(&app, &mut request).await?;
    let choices = request.generation.choices;
    let usage = Usage { prompt_tokens: prompt.tokens.len(), ..Usage::default() };
    let pieces = chat::start(&app, vec![prompt], &request.generation).await?;
    let frame = Frame { id: new_id("chatcmpl-"), created: seconds(), app };
    if delivery.stream {
        return Ok(sse::response(stream(frame, pieces, choices, delivery, usage)));
    }
    let answers = chat::collect(pieces, choices as usize).await?;
    let usage = total(usage, &answers);
    let choices = answers.iter().enumerate().map(|(index, answer)| {
        let mut choice = choice(index, answer);
        if !answer.tokens.is_empty() {
            choice["logprobs"] = frame.logprobs(&answer.tokens);
        }
        choice
    });
    let mut answer = frame.chunk("chat.completion", choices.collect());
    answer["usage"] = usage_json(&usage);
    Ok(axum::Json(answer).into_response())
}

/// The common form of a request.
pub fn request(fields: &mut Fields) -> Result<ChatRequest, ApiError> {
    let mut generation = generation::parse(fields)?;
    generation.options.thinking = thinking(fields)?;
    generation.logprobs = form::chat_logprobs(fields)?;
    let variables = fields.object("chat_template_kwargs")?.map(Fields::into_map);
    Ok(ChatRequest {
        tools: tools(fields)?,
        tool_choice: tool_choice(fields)?,
        single_call: fields.flag("parallel_tool_calls")? == Some(false),
        messages: messages::parse(fields)?,
        variables: variables.unwrap_or_default(),
        generation,
    })
}

/// Whether the model should think: `reasoning_effort`, or the template's own variable.
fn thinking(fields: &Fields) -> Result<bool, ApiError> {
    let by_effort = fields.text("reasoning_effort")?;
    let by_effort = by_effort.map(|effort| generation::thinks("reasoning_effort", effort));
    let by_template = match fields.object("chat_template_kwargs")? {
        Some(variables) => variables.flag("enable_thinking")?,
        None => None,
    };
    Ok(by_template.or(by_effort.transpose()?).unwrap_or(false))
}

fn total(mut usage: Usage, answers: &[Answer]) -> Usage {
    answers.iter().for_each(|answer| usage.add_answer(&answer.end.usage));
    usage
}

/// What all chunks of an answer have.
struct Frame {
    id: String,
    created: u64,
    app: Arc<App>,
}

impl Frame {
    fn chunk(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.app.options.model,
            "choices": choices,
        })
    }

    fn logprobs(&self, tokens: &[TokenChoice]) -> Value {
        let content = tokens.iter().map(|token| form::chat_entry(&self.app, token));
        json!({"content": content.collect::<Vec<_>>(), "refusal": null})
    }

    /// A chunk with the log probabilities of a token. Its text follows.
    fn token(&self, index: u32, token: TokenChoice) -> SseEvent {
        let choice = json!({
            "index": index,
            "delta": {"content": ""},
            "logprobs": self.logprobs(&[token]),
            "finish_reason": null,
        });
        SseEvent::Data(self.chunk("chat.completion.chunk", vec![choice]))
    }

    fn delta(&self, index: u32, delta: Value, finish_reason: Option<&str>) -> SseEvent {
        let choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": null,
            "finish_reason": finish_reason,
        });
        SseEvent::Data(self.chunk("chat.completion.chunk", vec![choice]))
    }
}

fn stream(
    frame: Frame,
    mut pieces: Pieces,
    choices: u32,
    delivery: Delivery,
    mut usage: Usage,
) -> impl Stream<Item = SseEvent> + Send {
    async_stream::stream! {
        for index in 0..choices {
            yield frame.delta(index, json!({"role": "assistant", "content": ""}), None);
        }
        let mut calls = vec![0; choices as usize];
        while let Some((index, piece)) = pieces.next().await {
            match piece {
                Piece::Event(event) => {
                    if let Some(delta) = delta(event, &mut calls[index as usize]) {
                        yield frame.delta(index, delta, None);
                    }
                }
                Piece::Token(token) => yield frame.token(index, token),
                Piece::End(end) => {
                    usage.add_answer(&end.usage);
                    yield frame.delta(index, json!({}), Some(finish_reason(&end.reason)));
                }
                Piece::Failed(error) => {
                    // Without the mark at the end, so that no client takes it for a whole answer.
                    yield SseEvent::Data(error.body(Dialect::OpenAi));
                    return;
                }
            }
        }
        if delivery.include_usage {
            let mut last = frame.chunk("chat.completion.chunk", Vec::new());
            last["usage"] = usage_json(&usage);
            yield SseEvent::Data(last);
        }
        yield SseEvent::Done;
    }
}

/// The change that an event makes to the message. `calls` counts the tool calls so far.
fn delta(event: ChatEvent, calls: &mut usize) -> Option<Value> {
    Some(match event {
        ChatEvent::Text(text) => json!({"content": text}),
        ChatEvent::Thought(text) => json!({"reasoning_content": text}),
        ChatEvent::CallStart { id, name } => {
            let function = json!({"name": name, "arguments": ""});
            let index = *calls;
            *calls += 1;
            let call = json!({"index": index, "id": id, "type": "function", "function": function});
            json!({"tool_calls": [call]})
        }
        ChatEvent::CallArguments(text) => {
            let index = calls.saturating_sub(1);
            json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        }
        ChatEvent::CallEnd => return None,
        ChatEvent::Malformed { text, reason } => {
            json!({"content": text, "malformed_tool_call": reason})
        }
    })
}

/// A whole answer.
fn choice(index: usize, answer: &Answer) -> Value {
    let call = |item: &Item| match item {
        Item::Call { id, name, arguments } => Some(json!({
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        })),
        _ => None,
    };
    let calls: Vec<Value> = answer.items.iter().filter_map(call).collect();
    let (content, reasoning) = (answer.text(), answer.thoughts());
    let no_content = content.is_empty() && !calls.is_empty();
    let content = if no_content { Value::Null } else { Value::String(content) };
    let mut message = json!({"role": "assistant", "content": content});
    if !reasoning.is_empty() {
        message["reasoning_content"] = json!(reasoning);
    }
    if let Some(reason) = answer.malformed() {
        message["malformed_tool_call"] = json!(reason);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    json!({
        "index": index,
        "message": message,
        "logprobs": null,
        "finish_reason": finish_reason(&answer.end.reason),
    })
}
