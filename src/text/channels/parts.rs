//! A complete answer, divided into its parts.

use crate::text::channels::call::{BrokenCall, ToolCall};
use crate::text::channels::event::AnswerEvent;

/// The events of an answer, joined.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerParts {
    pub content: String,
    /// All thoughts. `None` if there are none.
    pub reasoning: Option<String>,
    /// Name and text of each other channel.
    pub channels: Vec<(String, String)>,
    pub tool_calls: Vec<ToolCall>,
    pub broken_calls: Vec<BrokenCall>,
}

impl AnswerParts {
    /// Adds the next event.
    pub fn add(&mut self, event: AnswerEvent) {
        match event {
            AnswerEvent::Content(text) => self.content += &text,
            AnswerEvent::Thought(text) => *self.reasoning.get_or_insert_default() += &text,
            AnswerEvent::Channel { name, text } => match self.channels.last_mut() {
                Some((last, whole)) if *last == name && !text.is_empty() => *whole += &text,
                _ => self.channels.push((name, text)),
            },
            AnswerEvent::ToolCall(call) => self.tool_calls.push(call),
            AnswerEvent::BrokenCall(call) => self.broken_calls.push(call),
        }
    }
}
