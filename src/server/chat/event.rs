//! Pieces of an answer.

use futures_util::stream::BoxStream;
use serde_json::Value;

use crate::generate::Stats;
use crate::sampling::TokenLogprobs;
use crate::server::error::ApiError;

/// A piece of an answer, in the order in which the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatEvent {
    Text(String),
    Thought(String),
    /// A tool call begins. Its arguments and its end follow before any other event.
    CallStart {
        id: String,
        name: String,
    },
    /// A piece of the arguments' JSON text.
    CallArguments(String),
    CallEnd,
    /// The text of a call that cannot be parsed, and the reason.
    Malformed {
        text: String,
        reason: String,
    },
}

/// A piece of an answer, or its end.
#[derive(Debug)]
pub enum Piece {
    Event(ChatEvent),
    /// The next token, before its events, if the request wants log probabilities.
    Token(TokenChoice),
    /// Nothing follows.
    End(End),
    /// The answer failed: nothing follows.
    Failed(ApiError),
}

/// A token with its log probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenChoice {
    pub id: u32,
    pub logprobs: TokenLogprobs,
}

/// The pieces of several answers, each with the answer's index.
pub type Pieces = BoxStream<'static, (u32, Piece)>;

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct End {
    pub reason: EndReason,
    pub usage: Usage,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EndReason {
    #[default]
    Stop,
    /// One of the request's stop texts.
    StopText(String),
    /// The model waits for the results of its calls.
    ToolCalls,
    /// As many tokens as the request allows.
    Length,
    /// The context is full.
    ContextFull,
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Prompt tokens that an earlier request had left in the KV cache.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Tokens of the completion that wrote thoughts.
    pub reasoning_tokens: usize,
}

impl Usage {
    pub fn new(stats: &Stats, reasoning_tokens: usize) -> Usage {
        Usage {
            prompt_tokens: stats.prompt_tokens,
            cached_tokens: stats.cached_tokens,
            completion_tokens: stats.generated_tokens,
            reasoning_tokens,
        }
    }

    /// Adds another answer to the same prompt, which counts once.
    pub fn add_answer(&mut self, other: &Usage) {
        self.cached_tokens = self.cached_tokens.max(other.cached_tokens);
        self.completion_tokens += other.completion_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }
}

/// Arguments as JSON text.
pub fn arguments_text(arguments: serde_json::Map<String, Value>) -> String {
    Value::Object(arguments).to_string()
}
