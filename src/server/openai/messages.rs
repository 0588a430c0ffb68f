//! Messages of a chat request.

use serde_json::{Map, Value};

use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::text::{Message, Part, ResultOf, Role};

/// Reads `messages`.
///
/// Errors: no messages, an unknown role, content of an unknown kind, broken tool calls.
pub fn parse(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let Some(messages) = fields.take("messages") else {
        return Err(ApiError::bad_field("messages", "messages is missing"));
    };
    let Value::Array(messages) = messages else {
        return Err(ApiError::bad_field("messages", "messages must be a list"));
    };
    if messages.is_empty() {
        return Err(ApiError::bad_field("messages", "messages is empty"));
    }
    messages.into_iter().enumerate().map(|(at, message)| one(at, message)).collect()
}

fn one(at: usize, message: Value) -> Result<Message, ApiError> {
    let wrong = |message: String| ApiError::bad_field(format!("messages[{at}]"), message);
    let Value::Object(fields) = message else {
        return Err(wrong(format!("messages[{at}] must be an object")));
    };
    let role = match fields.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        Some(role) => return Err(wrong(format!("messages[{at}].role: {role:?} is no role"))),
        None => return Err(wrong(format!("messages[{at}].role must be a string"))),
    };
    let mut parts = Vec::new();
    if role == Role::Assistant {
        let names = ["reasoning_content", "reasoning"];
        let reasoning = names.iter().find_map(|name| fields.get(*name).and_then(Value::as_str));
        parts.extend(
            reasoning.filter(|text| !text.is_empty()).map(|text| Part::Thought(text.into())),
        );
    }
    if role == Role::Tool {
        let text = |name| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        parts.push(Part::ResultOf(ResultOf { call_id: text("tool_call_id"), tool: text("name") }));
    }
    let texts = texts(fields.get("content"))
        .map_err(|reason| wrong(format!("messages[{at}].content {reason}")))?;
    parts.extend(texts.into_iter().filter(|text| !text.is_empty()).map(Part::Text));
    if role == Role::Assistant {
        parts.extend(
            calls(&fields)
                .map_err(|reason| wrong(format!("messages[{at}].tool_calls: {reason}")))?,
        );
    }
    Ok(Message { role, parts })
}

/// The texts of `content`: null, a string, or a list of text parts.
pub fn texts(content: Option<&Value>) -> Result<Vec<String>, String> {
    match content {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(parts)) => parts.iter().map(text).collect(),
        Some(_) => Err("is neither a string nor a list of parts".into()),
    }
}

fn text(part: &Value) -> Result<String, String> {
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "input_text" | "output_text") => match part.get("text") {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err("has a text part without text".into()),
        },
        Some(kind) => Err(format!("has a part of type {kind:?}, but this model reads text alone")),
        None => Err("has a part without type".into()),
    }
}

fn calls(fields: &Map<String, Value>) -> Result<Vec<Part>, String> {
    let calls = match fields.get("tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err("must be a list".into()),
    };
    let call = |call: &Value| {
        serde_json::from_value(call.clone()).map(Part::ToolCall).map_err(|error| error.to_string())
    };
    calls.iter().map(call).collect()
}
