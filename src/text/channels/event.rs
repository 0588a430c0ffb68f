//! Pieces of an answer.

use crate::text::channels::call::{BrokenCall, ToolCall};

/// A piece of an answer, in the order in which the model wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvent {
    /// Text for the reader.
    Content(String),
    /// Text of the channel `thought`, or of a channel without a name.
    Thought(String),
    /// Text of a channel with another name. Its first piece is empty: it announces the channel.
    Channel { name: String, text: String },
    /// A whole call.
    ToolCall(ToolCall),
    /// What a call's marks enclose, but cannot be read as one.
    BrokenCall(BrokenCall),
}
