//! Thoughts and tools in each dialect, of a scripted model.

mod agents;
mod anthropic;
mod chat;
mod native;
mod ollama;
mod responses;

use serde_json::{Value, json};

/// The answer of a model that thinks and calls two tools.
pub const CALLS: &str = "<|channel>thought\nLet me look.<channel|>I call.\
    <|tool_call>call:sky{city:<|\"|>Paris, {FR} \"x\"<|\"|>,days:3}<tool_call|>\
    <|tool_call>call:list{of:{a:[1,true,null]}}<tool_call|>";

/// The arguments of its calls.
pub fn arguments() -> [Value; 2] {
    [json!({"city": "Paris, {FR} \"x\"", "days": 3}), json!({"of": {"a": [1, true, null]}})]
}

/// A call without an end.
pub const MALFORMED: &str = "Hm. <|tool_call>call:sky{city:<|\"|>Paris";

/// A schema with what Gemma's templates do not know.
pub fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "A <turn|> city"},
            "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["city"],
        "additionalProperties": false,
    })
}
