//! OpenAI's API.

mod chat;
mod completions;
mod form;
mod generation;
mod messages;
mod tools;

use serde_json::{Value, json};

use super::chat::{EndReason, Usage};

pub use chat::{chat, request};
pub use completions::completions;
pub use form::typed_format;
pub use generation::{sampling_fields, stops, thinks, tokens};
pub use messages::texts;
pub use tools::{function_of, tool_choice, tools};

/// The counts of tokens of chats and completions.
fn usage_json(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}

/// The name of a reason in chats and completions.
fn finish_reason(reason: &EndReason) -> &'static str {
    match reason {
        EndReason::Stop | EndReason::StopText(_) => "stop",
        EndReason::ToolCalls => "tool_calls",
        EndReason::Length | EndReason::ContextFull => "length",
    }
}
