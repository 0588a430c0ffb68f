//! A conversation to continue.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::api::ChatOptions;
pub use crate::grammar::ToolChoice;
use crate::grammar::{AnswerRules, Format};
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
    /// At most one call.
    pub single_call: bool,
    /// Further variables of the chat template.
    pub variables: Map<String, Value>,
    pub generation: Generation,
}

/// How answers are generated.
#[derive(Debug, Clone)]
pub struct Generation {
    pub options: ChatOptions,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Answers to each prompt.
    pub choices: u32,
    /// The form of the answers, and their calls.
    pub rules: AnswerRules,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// List the log probability of each token, and of this many of the likeliest.
    pub logprobs: Option<usize>,
}

impl Default for Generation {
    fn default() -> Self {
        Generation {
            options: ChatOptions::default(),
            stop: Vec::new(),
            choices: 1,
            rules: AnswerRules::default(),
            logit_bias: Vec::new(),
            logprobs: None,
        }
    }
}

impl Generation {
    /// The same with answers of this form.
    pub fn with_format(mut self, format: Option<Format>) -> Generation {
        self.rules.format = format;
        self
    }
}

impl ChatRequest {
    /// What the answers may be.
    pub fn rules(&self) -> AnswerRules {
        AnswerRules {
            format: self.generation.rules.format.clone(),
            tools: self.tools.clone(),
            tool_choice: match (&self.tool_choice, self.tools.is_empty()) {
                // Without tools nothing needs to be forbidden.
                (ToolChoice::None, true) => ToolChoice::Auto,
                (choice, _) => choice.clone(),
            },
            single_call: self.single_call,
            thinking: self.generation.options.thinking,
        }
    }

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
