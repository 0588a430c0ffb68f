//! Messages and their content blocks.

use serde_json::Value;

use crate::server::error::ApiError;
use crate::text::{Message, Part, ResultOf, Role, ToolCall};

/// Reads `messages`. Results of tools become messages of their own.
///
/// Errors: no messages, an unknown role, a block that this model cannot read.
pub fn messages(messages: Option<Value>) -> Result<Vec<Message>, ApiError> {
    let wrong = |reason: &str| ApiError::bad_field("messages", format!("messages {reason}"));
    let messages = match messages {
        None => return Err(wrong("is missing")),
        Some(Value::Array(messages)) if messages.is_empty() => return Err(wrong("is empty")),
        Some(Value::Array(messages)) => messages,
        Some(_) => return Err(wrong("must be a list")),
    };
    let mut read = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        one(message, &mut read).map_err(|reason| {
            ApiError::bad_field(format!("messages.{at}"), format!("messages.{at}: {reason}"))
        })?;
    }
    Ok(read)
}

fn one(message: &Value, read: &mut Vec<Message>) -> Result<(), String> {
    let role = match message["role"].as_str() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        Some(role) => return Err(format!("{role:?} is no role")),
        None => return Err("role must be a string".into()),
    };
    let mut parts = Vec::new();
    match &message["content"] {
        Value::String(text) => push_text(&mut parts, text, role),
        Value::Array(blocks) => {
            for block in blocks {
                let kind = block["type"].as_str().ok_or("a block has no type")?;
                match kind {
                    "tool_result" if role == Role::User => read.push(tool_result(block)?),
                    _ => push_block(&mut parts, kind, block, role)?,
                }
            }
        }
        _ => return Err("content must be a string or a list of blocks".into()),
    }
    // A message that only has results has no more to say.
    if !parts.is_empty() || message["content"].as_array().is_none_or(Vec::is_empty) {
        read.push(Message { role, parts });
    }
    Ok(())
}

fn push_block(parts: &mut Vec<Part>, kind: &str, block: &Value, role: Role) -> Result<(), String> {
    let text =
        |name: &str| block[name].as_str().ok_or_else(|| format!("{kind}.{name} must be a string"));
    match kind {
        "text" => push_text(parts, text("text")?, role),
        "thinking" if role == Role::Assistant => {
            parts.push(Part::Thought(text("thinking")?.to_owned()));
        }
        "tool_use" if role == Role::Assistant => {
            let arguments = match &block["input"] {
                Value::Object(input) => input.clone(),
                Value::Null => serde_json::Map::new(),
                _ => return Err("tool_use.input must be an object".into()),
            };
            let (id, name) = (Some(text("id")?.to_owned()), text("name")?.to_owned());
            parts.push(Part::ToolCall(ToolCall { id, name, arguments }));
        }
        "document" => push_text(parts, &document(block)?, role),
        // What Anthropic's own servers have hidden or run.
        "redacted_thinking" | "server_tool_use" | "mcp_tool_use" => {}
        kind if kind.ends_with("_tool_result") => {}
        kind => return Err(format!("this model does not read blocks of type {kind:?}")),
    }
    Ok(())
}

/// An empty line divides the texts of a person; those of the model stay as they were.
fn push_text(parts: &mut Vec<Part>, text: &str, role: Role) {
    if text.is_empty() {
        return;
    }
    let is_second = matches!(parts.last(), Some(Part::Text(_))) && role != Role::Assistant;
    parts.push(Part::Text(if is_second { format!("\n\n{text}") } else { text.to_owned() }));
}

/// A document as text. No request makes this server fetch anything.
fn document(block: &Value) -> Result<String, String> {
    match block["source"]["type"].as_str() {
        Some("text") => {
            let data = block["source"]["data"].as_str();
            Ok(data.ok_or("document.source.data must be a string")?.to_owned())
        }
        _ => Err("this model reads documents of text alone".into()),
    }
}

fn tool_result(block: &Value) -> Result<Message, String> {
    let id = block["tool_use_id"].as_str().ok_or("tool_result.tool_use_id must be a string")?;
    let mut text = match &block["content"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks.iter().map(result_text).collect::<Result<Vec<_>, _>>()?;
            texts.into_iter().flatten().collect::<Vec<_>>().join("\n")
        }
        _ => return Err("tool_result.content must be a string or a list of blocks".into()),
    };
    if block["is_error"] == Value::Bool(true) && !text.to_lowercase().contains("error") {
        text = format!("Error: {text}");
    }
    let of = ResultOf { call_id: Some(id.to_owned()), tool: None };
    Ok(Message::tool_result(of, text))
}

fn result_text(block: &Value) -> Result<Option<String>, String> {
    match block["type"].as_str() {
        Some("text") => {
            let text = block["text"].as_str().ok_or("tool_result has a text that is no string")?;
            Ok(Some(text.to_owned()))
        }
        Some("document") => document(block).map(Some),
        // A client's own mark for tools that it found.
        Some("tool_reference") => Ok(None),
        Some(kind) => Err(format!("this model does not read results with blocks of type {kind:?}")),
        None => Err("tool_result has a block without type".into()),
    }
}
