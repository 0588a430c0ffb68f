//! Whole answers.

use futures_util::StreamExt;

use super::event::{ChatEvent, End, Piece, Pieces, TokenChoice};
use crate::server::error::ApiError;

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Its parts in order. Two texts or thoughts never follow one another.
    pub items: Vec<Item>,
    /// Its tokens, if the request wants log probabilities.
    pub tokens: Vec<TokenChoice>,
    pub end: End,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Text(String),
    Thought(String),
    /// `arguments` is JSON text.
    Call {
        id: String,
        name: String,
        arguments: String,
    },
    Malformed {
        text: String,
        reason: String,
    },
}

impl Answer {
    /// Adds the next event.
    pub fn add(&mut self, event: ChatEvent) {
        match (event, self.items.last_mut()) {
            (ChatEvent::Text(text), Some(Item::Text(whole)))
            | (ChatEvent::Thought(text), Some(Item::Thought(whole)))
            | (ChatEvent::CallArguments(text), Some(Item::Call { arguments: whole, .. })) => {
                *whole += &text;
            }
            (ChatEvent::Text(text), _) => self.items.push(Item::Text(text)),
            (ChatEvent::Thought(text), _) => self.items.push(Item::Thought(text)),
            (ChatEvent::CallStart { id, name }, _) => {
                self.items.push(Item::Call { id, name, arguments: String::new() });
            }
            (ChatEvent::Malformed { text, reason }, _) => {
                self.items.push(Item::Malformed { text, reason });
            }
            (ChatEvent::CallArguments(_) | ChatEvent::CallEnd, _) => {}
        }
    }

    /// All text of the answer itself. Malformed calls are a part of it.
    pub fn text(&self) -> String {
        let text = |item: &Item| match item {
            Item::Text(text) | Item::Malformed { text, .. } => Some(text.clone()),
            Item::Thought(_) | Item::Call { .. } => None,
        };
        self.items.iter().filter_map(text).collect()
    }

    /// All thoughts. An empty line separates two of them.
    pub fn thoughts(&self) -> String {
        let thought = |item: &Item| match item {
            Item::Thought(text) => Some(text.trim().to_owned()),
            _ => None,
        };
        self.items.iter().filter_map(thought).collect::<Vec<_>>().join("\n\n")
    }

    /// The reason of the first malformed call.
    pub fn malformed(&self) -> Option<&str> {
        self.items.iter().find_map(|item| match item {
            Item::Malformed { reason, .. } => Some(reason.as_str()),
            _ => None,
        })
    }
}

/// Waits for all of `count` answers.
///
/// Errors: one of them failed.
pub async fn collect(mut pieces: Pieces, count: usize) -> Result<Vec<Answer>, ApiError> {
    let mut answers = vec![Answer::default(); count];
    while let Some((index, piece)) = pieces.next().await {
        let Some(answer) = answers.get_mut(index as usize) else { continue };
        match piece {
            Piece::Event(event) => answer.add(event),
            Piece::Token(token) => answer.tokens.push(token),
            Piece::End(end) => answer.end = end,
            Piece::Failed(error) => return Err(error),
        }
    }
    Ok(answers)
}
