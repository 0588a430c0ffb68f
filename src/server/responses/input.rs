//! Items of the input, as messages.

use serde_json::{Map, Value, json};

use super::items::thought_of;
use super::tools::{INPUT, full_name};
use crate::server::error::ApiError;
use crate::server::openai;
use crate::text::{Message, Part, ResultOf, Role, ToolCall};

/// Reads `input`: a text, or items. Neighbouring items of the model become one message. Items of
/// unknown types are skipped.
///
/// Errors: no input, an item of a wrong form, a reference to a stored item.
pub fn messages(input: Option<Value>) -> Result<Vec<Message>, ApiError> {
    let wrong = |reason: &str| ApiError::bad_field("input", format!("input {reason}"));
    let items = match input {
        None => return Err(wrong("is missing")),
        Some(Value::String(text)) => return Ok(vec![Message::user(text)]),
        Some(Value::Array(items)) if items.is_empty() => return Err(wrong("is empty")),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong("must be a string or a list of items")),
    };
    let mut messages = Vec::new();
    for (at, item) in items.iter().enumerate() {
        one(item, &mut messages).map_err(|reason| {
            ApiError::bad_field(format!("input[{at}]"), format!("input[{at}]: {reason}"))
        })?;
    }
    if messages.is_empty() {
        return Err(wrong("has no messages"));
    }
    Ok(messages)
}

fn one(item: &Value, messages: &mut Vec<Message>) -> Result<(), String> {
    if !item.is_object() {
        return Err("an item must be an object".into());
    }
    let text = |name: &str| item[name].as_str().ok_or_else(|| format!("{name} must be a string"));
    match item["type"].as_str().unwrap_or("message") {
        "message" => message(item, messages)?,
        "reasoning" => {
            let thought = thought_of(item);
            if !thought.is_empty() {
                push(messages, Part::Thought(thought));
            }
        }
        "function_call" => {
            let arguments = match &item["arguments"] {
                Value::String(text) if text.trim().is_empty() => Map::new(),
                Value::String(text) => serde_json::from_str(text)
                    .map_err(|error| format!("arguments are no JSON object: {error}"))?,
                Value::Object(arguments) => arguments.clone(),
                _ => return Err("arguments must be a string".into()),
            };
            let name = full_name(item["namespace"].as_str(), text("name")?);
            let id = Some(text("call_id")?.to_owned());
            push(messages, Part::ToolCall(ToolCall { id, name, arguments }));
        }
        "custom_tool_call" => {
            let arguments = Map::from_iter([(INPUT.to_owned(), json!(text("input")?))]);
            let id = Some(text("call_id")?.to_owned());
            let name = full_name(item["namespace"].as_str(), text("name")?);
            push(messages, Part::ToolCall(ToolCall { id, name, arguments }));
        }
        "function_call_output" | "custom_tool_call_output" => {
            let of = ResultOf { call_id: Some(text("call_id")?.to_owned()), tool: None };
            messages.push(Message::tool_result(of, output(&item["output"])?));
        }
        "item_reference" => {
            return Err("this server stores no items; set store to false".into());
        }
        _ => {}
    }
    Ok(())
}

fn message(item: &Value, messages: &mut Vec<Message>) -> Result<(), String> {
    let role = match item["role"].as_str() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(role) => return Err(format!("{role:?} is no role")),
        None => return Err("role must be a string".into()),
    };
    let texts = openai::texts(item.get("content")).map_err(|reason| format!("content {reason}"))?;
    let parts: Vec<Part> =
        texts.into_iter().filter(|text| !text.is_empty()).map(Part::Text).collect();
    match role {
        Role::Assistant => parts.into_iter().for_each(|part| push(messages, part)),
        _ => messages.push(Message { role, parts }),
    }
    Ok(())
}

/// Adds a part to the model's message at the end, or begins one.
fn push(messages: &mut Vec<Message>, part: Part) {
    match messages.last_mut() {
        Some(last) if last.role == Role::Assistant => last.parts.push(part),
        _ => messages.push(Message { role: Role::Assistant, parts: vec![part] }),
    }
}

/// A tool's output: a text, or parts of which this model reads the texts.
fn output(output: &Value) -> Result<String, String> {
    match output {
        Value::Null => Ok(String::new()),
        Value::Object(_) => Ok(output.to_string()),
        output => {
            let texts = openai::texts(Some(output)).map_err(|reason| format!("output {reason}"))?;
            Ok(texts.join("\n"))
        }
    }
}
