//! Whole answers.

use serde_json::{Map, Value, json};

use super::{stop_reason, usage_json};
use crate::server::chat::{Answer, Item};

/// The signature of thoughts. Clients send back only signed thoughts; this server checks none.
pub const SIGNATURE: &str = "unsigned";

/// An answer as a message.
pub fn json(id: &str, model: &str, answer: &Answer) -> Value {
    let content: Vec<Value> = answer.items.iter().map(block).collect();
    let (reason, sequence) = stop_reason(&answer.end.reason);
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage_json(&answer.end.usage),
    })
}

fn block(item: &Item) -> Value {
    match item {
        Item::Text(text) => json!({"type": "text", "text": text}),
        Item::Thought(text) => {
            json!({"type": "thinking", "thinking": text, "signature": SIGNATURE})
        }
        Item::Call { id, name, arguments } => {
            let input: Map<String, Value> = serde_json::from_str(arguments).unwrap_or_default();
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
        Item::Malformed { text, reason } => {
            json!({"type": "text", "text": text, "malformed_tool_call": reason})
        }
    }
}
