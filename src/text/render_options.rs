//! How a conversation becomes a prompt.

use serde_json::Map;

use crate::text::tool::Tool;

/// Options of rendering.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderOptions {
    /// Ends with the beginning of the model's turn.
    pub add_generation_prompt: bool,
    /// Requests thoughts from models that support them.
    pub enable_thinking: bool,
    /// Spellings of control tokens in messages become control tokens, as in transformers and
    /// llama.cpp.
    pub parse_special: bool,
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Further variables of the template, such as `preserve_thinking`.
    pub variables: Map<String, serde_json::Value>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        RenderOptions {
            add_generation_prompt: true,
            enable_thinking: false,
            parse_special: false,
            tools: Vec::new(),
            variables: Map::new(),
        }
    }
}
