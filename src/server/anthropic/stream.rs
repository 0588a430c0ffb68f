//! Answers as events.

use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::answer::SIGNATURE;
use super::{stop_reason, usage_json};
use crate::server::chat::{ChatEvent, Piece, Pieces, Usage};
use crate::server::error::Dialect;
use crate::server::sse::SseEvent;

/// The events of one answer.
pub fn events(
    id: String,
    model: String,
    prompt_tokens: usize,
    mut pieces: Pieces,
) -> impl Stream<Item = SseEvent> + Send {
    async_stream::stream! {
        let usage = Usage { prompt_tokens, ..Usage::default() };
        let message = json!({
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage_json(&usage),
        });
        yield SseEvent::Typed(json!({"type": "message_start", "message": message}));
        yield SseEvent::Typed(json!({"type": "ping"}));
        let mut blocks = Blocks::default();
        while let Some((_, piece)) = pieces.next().await {
            match piece {
                Piece::Event(event) => {
                    for event in blocks.take(event) {
                        yield SseEvent::Typed(event);
                    }
                }
                Piece::Token(_) => {}
                Piece::End(end) => {
                    for event in blocks.close() {
                        yield SseEvent::Typed(event);
                    }
                    let (reason, sequence) = stop_reason(&end.reason);
                    let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
                    let usage = usage_json(&end.usage);
                    let last = json!({"type": "message_delta", "delta": delta, "usage": usage});
                    yield SseEvent::Typed(last);
                    yield SseEvent::Typed(json!({"type": "message_stop"}));
                    return;
                }
                Piece::Failed(error) => {
                    yield SseEvent::Typed(error.body(Dialect::Anthropic));
                    return;
                }
            }
        }
    }
}

/// The kind of the open content block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
}

/// Divides an answer into content blocks.
#[derive(Default)]
struct Blocks {
    open: Option<Kind>,
    /// The open block's index, or that of the next.
    index: usize,
}

impl Blocks {
    fn take(&mut self, event: ChatEvent) -> Vec<Value> {
        let mut events = Vec::new();
        match event {
            ChatEvent::Text(text) => {
                self.open(Kind::Text, json!({"type": "text", "text": ""}), &mut events);
                events.push(self.delta(json!({"type": "text_delta", "text": text})));
            }
            ChatEvent::Thought(text) => {
                let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.open(Kind::Thinking, block, &mut events);
                events.push(self.delta(json!({"type": "thinking_delta", "thinking": text})));
            }
            ChatEvent::CallStart { id, name } => {
                events.extend(self.close());
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.open(Kind::Call, block, &mut events);
            }
            ChatEvent::CallArguments(text) => {
                events.push(self.delta(json!({"type": "input_json_delta", "partial_json": text})));
            }
            ChatEvent::CallEnd => events.extend(self.close()),
            ChatEvent::Malformed { text, reason } => {
                events.extend(self.close());
                let block = json!({"type": "text", "text": "", "malformed_tool_call": reason});
                self.open(Kind::Text, block, &mut events);
                events.push(self.delta(json!({"type": "text_delta", "text": text})));
                events.extend(self.close());
            }
        }
        events
    }

    /// Opens a block, unless one of this kind is open.
    fn open(&mut self, kind: Kind, block: Value, events: &mut Vec<Value>) {
        if self.open == Some(kind) {
            return;
        }
        events.extend(self.close());
        self.open = Some(kind);
        events.push(json!({
            "type": "content_block_start",
            "index": self.index,
            "content_block": block,
        }));
    }

    fn delta(&self, delta: Value) -> Value {
        json!({"type": "content_block_delta", "index": self.index, "delta": delta})
    }

    /// Closes the open block.
    fn close(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        let Some(kind) = self.open.take() else { return events };
        if kind == Kind::Thinking {
            events.push(self.delta(json!({"type": "signature_delta", "signature": SIGNATURE})));
        }
        events.push(json!({"type": "content_block_stop", "index": self.index}));
        self.index += 1;
        events
    }
}
