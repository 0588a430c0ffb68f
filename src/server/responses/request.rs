//! Requests in the common form, and what a response repeats of them.

use serde_json::{Value, json};

use super::{input, tools, tools::Tools};
use crate::api::ChatOptions;
use crate::grammar::Format;
use crate::server::app::{App, new_id, seconds};
use crate::server::chat::{ChatRequest, Generation};
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::server::openai;
use crate::text::{Message, Role};

/// A request.
pub struct Request {
    pub chat: ChatRequest,
    pub tools: Tools,
    /// Whether reasoning items carry their text in `encrypted_content`, which clients send back.
    pub with_encrypted: bool,
}

/// Reads a request for a response or for a count of its tokens.
///
/// Errors: a field or item of a wrong form, a field that needs stored responses.
pub fn parse(fields: &mut Fields) -> Result<Request, ApiError> {
    refuse_unsupported(fields)?;
    let most = openai::tokens(fields.whole("max_output_tokens", 1..=u64::MAX)?);
    let sampling = openai::sampling_fields(fields)?;
    let options = ChatOptions { max_new_tokens: most, thinking: thinking(fields)?, ..sampling };
    let stop = openai::stops(fields, "stop")?;
    let tool_choice = openai::tool_choice(fields)?;
    let include = fields.texts("include")?;
    let tools = tools::parse(fields.take("tools"))?;
    let mut messages = Vec::new();
    let instructions = fields.text("instructions")?.unwrap_or_default();
    messages.extend((!instructions.is_empty()).then(|| Message::new(Role::System, instructions)));
    messages.extend(input::messages(fields.take("input"))?);
    let chat = ChatRequest {
        messages,
        tools: tools.functions().to_vec(),
        tool_choice,
        single_call: fields.flag("parallel_tool_calls")? == Some(false),
        generation: Generation { options, stop, ..Generation::default() }
            .with_format(format(fields)?),
        ..ChatRequest::default()
    };
    let with_encrypted = include.iter().any(|name| name == "reasoning.encrypted_content");
    Ok(Request { chat, tools, with_encrypted })
}

fn refuse_unsupported(fields: &Fields) -> Result<(), ApiError> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if fields.get(name).is_some() {
            let message = format!("{name}: this server stores nothing; send the whole input");
            return Err(ApiError::bad_field(name, message));
        }
    }
    if fields.flag("background")?.unwrap_or(false) {
        return Err(ApiError::unsupported("background", "a response to fetch later"));
    }
    Ok(())
}

fn format(fields: &Fields) -> Result<Option<Format>, ApiError> {
    let Some(text) = fields.object("text")? else { return Ok(None) };
    match text.object("format")? {
        Some(format) => openai::typed_format("text.format", &format),
        None => Ok(None),
    }
}

fn thinking(fields: &Fields) -> Result<bool, ApiError> {
    let Some(reasoning) = fields.object("reasoning")? else { return Ok(false) };
    match reasoning.text("effort")? {
        Some(effort) => openai::thinks("reasoning.effort", effort),
        None => Ok(false),
    }
}

/// The fields of a response that do not depend on its answer.
pub struct ResponseObject(Value);

impl ResponseObject {
    /// Repeats the request's fields.
    pub fn new(app: &App, fields: &Fields) -> ResponseObject {
        let field = |name: &str, default: Value| fields.get(name).cloned().unwrap_or(default);
        ResponseObject(json!({
            "id": new_id("resp_"),
            "object": "response",
            "created_at": seconds(),
            "status": "in_progress",
            "background": false,
            "error": null,
            "incomplete_details": null,
            "instructions": field("instructions", Value::Null),
            "max_output_tokens": field("max_output_tokens", Value::Null),
            "metadata": field("metadata", json!({})),
            "model": app.options.model,
            "output": [],
            "parallel_tool_calls": field("parallel_tool_calls", json!(true)),
            "previous_response_id": null,
            "reasoning": field("reasoning", json!({"effort": null, "summary": null})),
            "store": false,
            "temperature": field("temperature", Value::Null),
            "text": field("text", json!({"format": {"type": "text"}})),
            "tool_choice": field("tool_choice", json!("auto")),
            "tools": field("tools", json!([])),
            "top_p": field("top_p", Value::Null),
            "truncation": "disabled",
            "usage": null,
        }))
    }

    /// The object with this status and output.
    pub fn with(&self, status: &str, output: &[Value]) -> Value {
        let mut object = self.0.clone();
        object["status"] = json!(status);
        object["output"] = json!(output);
        object
    }
}
