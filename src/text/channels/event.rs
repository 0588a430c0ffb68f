//! Pieces of an answer.

use crate::text::channels::call::{BrokenCall, ToolCall};

/// A piece of an answer, in the order in which the model wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvent {
    /// Text of the answer itself.
    Content(String),
    /// Text of the channel `thought`, or of a channel without a name.
    Thought(String),
    /// Text of a channel with another name. Its first piece is empty and announces the channel.
    Channel { name: String, text: String },
    /// A complete tool call.
    ToolCall(ToolCall),
    /// Text between a call's marks that cannot be parsed as a call.
    BrokenCall(BrokenCall),
}
