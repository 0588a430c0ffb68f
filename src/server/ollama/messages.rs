//! Messages of a chat request.

use serde_json::Value;

use crate::server::error::ApiError;
use crate::text::{Message, Part, ResultOf, Role, ToolCall};

/// Reads `messages`. None, or an empty list, only loads the model.
///
/// Errors: an unknown role, images, broken tool calls.
pub fn parse(messages: Option<Value>) -> Result<Vec<Message>, ApiError> {
    let messages = match messages {
        None => return Ok(Vec::new()),
        Some(Value::Array(messages)) => messages,
        Some(_) => return Err(ApiError::bad_field("messages", "messages must be a list")),
    };
    let one = |(at, message): (usize, &Value)| {
        one(message).map_err(|reason| {
            ApiError::bad_field(format!("messages[{at}]"), format!("messages[{at}]: {reason}"))
        })
    };
    messages.iter().enumerate().map(one).collect()
}

fn one(message: &Value) -> Result<Message, String> {
    let text = |name: &str| match &message[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        _ => Err(format!("{name} must be a string")),
    };
    let role = match message["role"].as_str() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        Some(role) => return Err(format!("{role:?} is no role")),
        None => return Err("role must be a string".into()),
    };
    refuse_images(message.get("images"))?;
    let mut parts = Vec::new();
    match role {
        Role::Tool => {
            let tool = text("tool_name")?.or(text("name")?);
            parts.push(Part::ResultOf(ResultOf { call_id: text("tool_call_id")?, tool }));
        }
        Role::Assistant => parts.extend(text("thinking")?.map(Part::Thought)),
        Role::System | Role::User => {}
    }
    parts.extend(text("content")?.map(Part::Text));
    if role == Role::Assistant {
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        for call in calls {
            let call: ToolCall = serde_json::from_value(call.clone())
                .map_err(|error| format!("tool_calls: {error}"))?;
            parts.push(Part::ToolCall(call));
        }
    }
    Ok(Message { role, parts })
}

/// Errors in words: there are images.
pub fn refuse_images(images: Option<&Value>) -> Result<(), String> {
    match images {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(images)) if images.is_empty() => Ok(()),
        Some(_) => Err("images: this model reads text alone".into()),
    }
}
