//! `/v1/chat/completions`

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::answer::{Piece, Pieces, Usage, finish_reason, start};
use super::app::{App, new_id, seconds};
use super::error::ApiError;
use super::events;
use super::fields::Fields;
use super::generation::Generation;
use super::messages;
use crate::text::{AnswerEvent, AnswerParts, Message, Prompt, ToolCall};

pub async fn chat(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let mut generation = Generation::parse(&fields)?;
    generation.options.thinking = thinking(&fields)?;
    refuse_tools(&fields)?;
    let messages = messages::parse(&mut fields)?;
    let prompt = prompt(&app, messages, &generation).await?;
    let mut usage = Usage { prompt_tokens: prompt.tokens.len(), ..Usage::default() };
    let mut pieces = start(&app, vec![prompt], &generation).await?;
    let frame = Frame { id: new_id("chatcmpl-"), created: seconds(), app };
    if generation.stream {
        return Ok(events::response(stream(frame, pieces, generation, usage)));
    }
    let mut choices = vec![Choice::default(); generation.choices as usize];
    while let Some((index, piece)) = pieces.next().await {
        let choice = &mut choices[index as usize];
        match piece {
            Piece::Event(event) => choice.parts.add(event),
            Piece::End { reason, stats } => {
                usage.add(&stats);
                choice.finish_reason = finish_reason(reason);
            }
            Piece::Failed(error) => return Err(error),
        }
    }
    let choices: Vec<Value> =
        choices.into_iter().enumerate().map(|(index, choice)| choice.json(index)).collect();
    let mut answer = frame.chunk("chat.completion", choices);
    answer["usage"] = usage.json();
    Ok(axum::Json(answer).into_response())
}

/// Whether the model should think: `reasoning_effort`, or the template's own variable.
fn thinking(fields: &Fields) -> Result<bool, ApiError> {
    let by_effort = match fields.text("reasoning_effort")? {
        None => None,
        Some("none" | "minimal") => Some(false),
        Some("low" | "medium" | "high" | "xhigh" | "max") => Some(true),
        Some(effort) => {
            let message =
                format!("reasoning_effort: {effort:?} is none of none, minimal, low, medium, high");
            return Err(ApiError::bad_field("reasoning_effort", message));
        }
    };
    let by_template = match fields.object("chat_template_kwargs")? {
        Some(variables) => variables.flag("enable_thinking")?,
        None => None,
    };
    Ok(by_template.or(by_effort).unwrap_or(false))
}

/// An empty list means no tools, and so does a choice of none of them.
fn refuse_tools(fields: &Fields) -> Result<(), ApiError> {
    let none = fields.get("tool_choice").and_then(Value::as_str) == Some("none");
    for name in ["tools", "functions"] {
        match fields.get(name) {
            None => {}
            Some(Value::Array(tools)) if tools.is_empty() || none => {}
            Some(Value::Array(_)) => return Err(ApiError::unsupported(name, "a list of tools")),
            Some(_) => return Err(ApiError::bad_field(name, format!("{name} must be a list"))),
        }
    }
    Ok(())
}

/// The prompt of the conversation. Templates and tokenizers of long texts would block others.
async fn prompt(
    app: &Arc<App>,
    messages: Vec<Message>,
    generation: &Generation,
) -> Result<Prompt, ApiError> {
    let (app, options) = (Arc::clone(app), generation.options.render_options());
    let made = tokio::task::spawn_blocking(move || app.processor.chat(&messages, &options)).await;
    Ok(made.map_err(|_| ApiError::internal("the prompt could not be made"))??)
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

    fn delta(&self, index: u32, delta: Value, finish_reason: Option<&str>) -> Value {
        let choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": null,
            "finish_reason": finish_reason,
        });
        self.chunk("chat.completion.chunk", vec![choice])
    }
}

/// The chunks of a stream, without the mark at its end.
fn stream(
    frame: Frame,
    mut pieces: Pieces,
    generation: Generation,
    mut usage: Usage,
) -> impl Stream<Item = Result<Value, ApiError>> + Send {
    async_stream::stream! {
        for index in 0..generation.choices {
            yield Ok(frame.delta(index, json!({"role": "assistant", "content": ""}), None));
        }
        let mut calls = vec![0; generation.choices as usize];
        while let Some((index, piece)) = pieces.next().await {
            let calls = &mut calls[index as usize];
            match piece {
                Piece::Event(event) => {
                    if let Some(delta) = delta(event, calls) {
                        yield Ok(frame.delta(index, delta, None));
                    }
                }
                Piece::End { reason, stats } => {
                    usage.add(&stats);
                    let reason = if *calls > 0 { "tool_calls" } else { finish_reason(reason) };
                    yield Ok(frame.delta(index, json!({}), Some(reason)));
                }
                Piece::Failed(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
        if generation.include_usage {
            let mut last = frame.chunk("chat.completion.chunk", Vec::new());
            last["usage"] = usage.json();
            yield Ok(last);
        }
    }
}

/// The change that an event makes to the message. `calls` counts the tool calls so far.
fn delta(event: AnswerEvent, calls: &mut usize) -> Option<Value> {
    Some(match event {
        AnswerEvent::Content(text) => json!({"content": text}),
        AnswerEvent::Thought(text) => json!({"reasoning_content": text}),
        // Other channels are the model's own notes.
        AnswerEvent::Channel { text, .. } if text.is_empty() => return None,
        AnswerEvent::Channel { text, .. } => json!({"reasoning_content": text}),
        AnswerEvent::ToolCall(call) => {
            let mut call = tool_call(&call);
            call["index"] = json!(*calls);
            *calls += 1;
            json!({"tool_calls": [call]})
        }
        AnswerEvent::BrokenCall(call) => {
            json!({"content": call.text, "malformed_tool_call": call.reason})
        }
    })
}

fn tool_call(call: &ToolCall) -> Value {
    let arguments = Value::Object(call.arguments.clone()).to_string();
    let function = json!({"name": call.name, "arguments": arguments});
    json!({"id": new_id("call_"), "type": "function", "function": function})
}

/// A whole answer.
#[derive(Clone, Default)]
struct Choice {
    parts: AnswerParts,
    finish_reason: &'static str,
}

impl Choice {
    fn json(self, index: usize) -> Value {
        let Choice { parts, finish_reason } = self;
        let calls: Vec<Value> = parts.tool_calls.iter().map(tool_call).collect();
        let channels = parts.channels.into_iter().map(|(_, text)| text);
        let reasoning: String = parts.reasoning.into_iter().chain(channels).collect();
        let broken = parts.broken_calls.first().map(|call| call.reason.clone());
        let content: String = [parts.content]
            .into_iter()
            .chain(parts.broken_calls.into_iter().map(|call| call.text))
            .collect();
        let no_content = content.is_empty() && !calls.is_empty();
        let content = if no_content { Value::Null } else { Value::String(content) };
        let mut message = json!({"role": "assistant", "content": content});
        if !reasoning.is_empty() {
            message["reasoning_content"] = json!(reasoning);
        }
        if let Some(reason) = broken {
            message["malformed_tool_call"] = json!(reason);
        }
        let finish_reason = if calls.is_empty() { finish_reason } else { "tool_calls" };
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        json!({
            "index": index,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_reason,
        })
    }
}
