//! A conversation to continue.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::api::ChatOptions;
use crate::text::{Message, RenderOptions, Tool};

/// Most tools of a request.
const MOST_TOOLS: usize = 1024;
/// Most bytes of a tool's name.
const LONGEST_NAME: usize = 256;

/// A conversation, and how it is continued.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// Further variables of the chat template.
    pub variables: Map<String, Value>,
    pub generation: Generation,
}

/// Which tools the model may or must call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    #[default]
    Auto,
    None,
    /// At least one call.
    Required,
    /// A call of this tool.
    Named(String),
}

/// How answers are generated.
#[derive(Debug, Clone)]
pub struct Generation {
    pub options: ChatOptions,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Answers to each prompt.
    pub choices: u32,
}

impl Default for Generation {
    fn default() -> Self {
        Generation { options: ChatOptions::default(), stop: Vec::new(), choices: 1 }
    }
}

impl ChatRequest {
    /// How the template renders the conversation.
    pub fn render_options(&self) -> RenderOptions {
        let tools = match self.tool_choice {
            ToolChoice::None => Vec::new(),
            _ => self.tools.clone(),
        };
        let variables = self.variables.clone();
        RenderOptions { tools, variables, ..self.generation.options.render_options() }
    }
}

/// Errors in words: too many tools, or a name that a call cannot spell or that comes twice.
pub fn check_tools(tools: &[Tool]) -> Result<(), String> {
    if tools.len() > MOST_TOOLS {
        return Err(format!("{} tools are more than {MOST_TOOLS}", tools.len()));
    }
    let mut names = HashSet::new();
    for Tool { name, .. } in tools {
        let is_unusable = |c: char| c.is_whitespace() || c.is_control() || "{}[]<>\",".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(is_unusable) {
            return Err(format!("{name:?} cannot be the name of a tool"));
        }
        if !names.insert(name) {
            return Err(format!("two tools have the name {name:?}"));
        }
    }
    Ok(())
}
