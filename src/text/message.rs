//! Messages of a conversation, as lists of parts.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::text::channels::{AnswerParts, ToolCall};

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[serde(alias = "developer")]
    System,
    User,
    #[serde(alias = "model")]
    Assistant,
    /// The program that carries out tool calls.
    Tool,
}

impl Role {
    /// The name that templates know.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message of a conversation.
///
/// Its JSON has the usual keys `role` and `content` (a text, or a list of `{"type": "text", "text":
/// …}`). Answers also have `reasoning` (or `reasoning_content`) and `tool_calls`. Results of tools
/// have `tool_call_id`, `name` or both.
///
/// ```
/// use gemma4_wgpu::Message;
///
/// let message: Message = serde_json::from_str(r#"{"role": "user", "content": "Hello"}"#)?;
/// assert_eq!(message, Message::user("Hello"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", from = "Wire")]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

/// A part of a message. Other kinds, such as images and sound, may be added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    Text(String),
    /// The model's thoughts before its answer. Templates decide which of them to repeat.
    Thought(String),
    /// A tool call of the model.
    ToolCall(ToolCall),
    /// The call to which a message of [`Role::Tool`] is the result.
    ResultOf(ResultOf),
}

/// Names the call of a result: by its id, by the tool, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultOf {
    pub call_id: Option<String>,
    pub tool: Option<String>,
}

impl Message {
    /// A message of text.
    pub fn new(role: Role, text: impl Into<String>) -> Message {
        let text = text.into();
        let parts = if text.is_empty() { Vec::new() } else { vec![Part::Text(text)] };
        Message { role, parts }
    }

    /// Instructions for the model.
    pub fn system(text: impl Into<String>) -> Message {
        Message::new(Role::System, text)
    }

    /// A prompt.
    pub fn user(text: impl Into<String>) -> Message {
        Message::new(Role::User, text)
    }

    /// An answer of the model.
    pub fn assistant(text: impl Into<String>) -> Message {
        Message::new(Role::Assistant, text)
    }

    /// The result of a tool call.
    pub fn tool_result(of: ResultOf, text: impl Into<String>) -> Message {
        let mut message = Message::new(Role::Tool, text);
        message.parts.insert(0, Part::ResultOf(of));
        message
    }

    /// All texts, joined, without thoughts and calls.
    pub fn content(&self) -> Cow<'_, str> {
        joined(self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        }))
        .unwrap_or_default()
    }

    /// All thoughts, joined. `None` if there are none.
    pub fn reasoning(&self) -> Option<Cow<'_, str>> {
        joined(self.parts.iter().filter_map(|part| match part {
            Part::Thought(text) => Some(text.as_str()),
            _ => None,
        }))
    }

    /// All calls, in their order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        })
    }

    /// The call to which this message is the result.
    pub fn result_of(&self) -> Option<&ResultOf> {
        self.parts.iter().find_map(|part| match part {
            Part::ResultOf(of) => Some(of),
            _ => None,
        })
    }
}

/// An answer as a message for the next prompt. Broken calls and other channels are omitted.
impl From<AnswerParts> for Message {
    fn from(answer: AnswerParts) -> Message {
        let AnswerParts { content, reasoning, tool_calls, .. } = answer;
        let mut message = Message::assistant(content);
        message.parts.splice(..0, reasoning.map(Part::Thought));
        message.parts.extend(tool_calls.into_iter().map(Part::ToolCall));
        message
    }
}

/// The texts as one. `None` if there are none.
fn joined<'a>(mut texts: impl Iterator<Item = &'a str>) -> Option<Cow<'a, str>> {
    let first = Cow::Borrowed(texts.next()?);
    Some(texts.fold(first, |all, text| all + text))
}

/// A message as JSON.
#[derive(Serialize, Deserialize)]
struct Wire {
    role: Role,
    #[serde(default)]
    content: Content,
    #[serde(default, alias = "reasoning_content", skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
    /// The tool of a result. The author of another message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "content is neither a text nor a list of text parts")]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ContentPart {
    Text { text: String },
}

impl Default for Content {
    fn default() -> Self {
        Content::Text(String::new())
    }
}

impl From<Message> for Wire {
    fn from(message: Message) -> Wire {
        let of = message.result_of().cloned().unwrap_or_default();
        Wire {
            role: message.role,
            content: Content::Text(message.content().into_owned()),
            reasoning: message.reasoning().map(Cow::into_owned),
            tool_calls: message.tool_calls().cloned().collect(),
            tool_call_id: of.call_id,
            name: of.tool,
        }
    }
}

impl From<Wire> for Message {
    fn from(wire: Wire) -> Message {
        let texts = match wire.content {
            Content::Text(text) => vec![text],
            Content::Parts(parts) => {
                parts.into_iter().map(|ContentPart::Text { text }| text).collect()
            }
        };
        let texts = texts.into_iter().filter(|text| !text.is_empty());
        let mut parts: Vec<Part> = wire.reasoning.map(Part::Thought).into_iter().collect();
        parts.extend(texts.map(Part::Text));
        parts.extend(wire.tool_calls.into_iter().map(Part::ToolCall));
        if wire.role == Role::Tool {
            let of = ResultOf { call_id: wire.tool_call_id, tool: wire.name };
            parts.insert(0, Part::ResultOf(of));
        }
        Message { role: wire.role, parts }
    }
}
