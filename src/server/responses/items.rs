//! Items of the output.

use serde_json::{Map, Value, json};

use super::tools::{INPUT, Kind};

/// Before a thought in `encrypted_content`. It is not encrypted: this server has no secrets from
/// its clients, but some send back no other field.
const PLAIN: &str = "plain:";

/// A message of this text.
pub fn message(id: &str, status: &str, text: Option<&str>, malformed: Option<&str>) -> Value {
    let content: Vec<Value> = text.map(text_part).into_iter().collect();
    let mut item = json!({
        "id": id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    });
    if let Some(reason) = malformed {
        item["malformed_tool_call"] = json!(reason);
    }
    item
}

pub fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

pub fn thought_part(text: &str) -> Value {
    json!({"type": "reasoning_text", "text": text})
}

/// A reasoning item.
pub fn reasoning(id: &str, status: &str, text: Option<&str>, with_encrypted: bool) -> Value {
    let content: Vec<Value> = text.map(thought_part).into_iter().collect();
    let mut item = json!({
        "id": id,
        "type": "reasoning",
        "status": status,
        "summary": [],
        "content": content,
    });
    if let Some(text) = text.filter(|_| with_encrypted) {
        item["encrypted_content"] = json!(format!("{PLAIN}{text}"));
    }
    item
}

/// The thought of a reasoning item that a client sends back.
pub fn thought_of(item: &Value) -> String {
    let texts = |name: &str| -> String {
        let parts = item[name].as_array().into_iter().flatten();
        parts.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n\n")
    };
    let encrypted = item["encrypted_content"].as_str().and_then(|text| text.strip_prefix(PLAIN));
    let content = texts("content");
    match encrypted {
        _ if !content.is_empty() => content,
        Some(text) => text.to_owned(),
        None => texts("summary"),
    }
}

/// A call of the tool that a function stands for. `arguments` is JSON text.
pub fn call(kind: &Kind, ids: [&str; 2], name: &str, status: &str, arguments: &str) -> Value {
    let [id, call_id] = ids;
    let mut item = json!({"id": id, "call_id": call_id, "status": status, "name": name});
    match kind {
        Kind::Custom => {
            item["type"] = json!("custom_tool_call");
            item["input"] = json!(custom_input(arguments));
        }
        Kind::Function => {
            item["type"] = json!("function_call");
            item["arguments"] = json!(arguments);
        }
        Kind::Within { namespace, name } => {
            item["type"] = json!("function_call");
            item["arguments"] = json!(arguments);
            item["namespace"] = json!(namespace);
            item["name"] = json!(name);
        }
    }
    item
}

/// The text that a custom tool gets.
pub fn custom_input(arguments: &str) -> String {
    let arguments: Map<String, Value> = serde_json::from_str(arguments).unwrap_or_default();
    match arguments.get(INPUT) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
