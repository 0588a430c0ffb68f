//! Answers as items and events.

use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::request::ResponseObject;
use super::tools::{Kind, Tools};
use super::{items, usage_json};
use crate::server::app::new_id;
use crate::server::chat::{ChatEvent, End, EndReason, Piece, Pieces};
use crate::server::error::ApiError;
use crate::server::sse::SseEvent;

/// All events of a response.
pub fn events(mut builder: Builder, mut pieces: Pieces) -> impl Stream<Item = SseEvent> + Send {
    async_stream::stream! {
        for event in builder.begin() {
            yield SseEvent::Typed(event);
        }
        while let Some((_, piece)) = pieces.next().await {
            let events = match piece {
                Piece::Event(event) => builder.take(event),
                Piece::Token(_) => continue,
                Piece::End(end) => builder.end(&end),
                Piece::Failed(error) => builder.fail(&error),
            };
            for event in events {
                yield SseEvent::Typed(event);
            }
        }
    }
}

/// The item that is being written.
enum Open {
    Message { text: String, malformed: Option<String> },
    Reasoning { text: String },
    Call { call_id: String, name: String, kind: Kind, arguments: String },
}

/// Makes the items and events of a response.
pub struct Builder {
    object: ResponseObject,
    tools: Tools,
    with_encrypted: bool,
    /// Finished items.
    output: Vec<Value>,
    open: Option<Open>,
    /// The open item's id.
    id: String,
    sequence: u64,
    /// The response at its end.
    response: Value,
}

impl Builder {
    pub fn new(object: ResponseObject, tools: Tools, with_encrypted: bool) -> Builder {
        let response = object.with("in_progress", &[]);
        Builder {
            object,
            tools,
            with_encrypted,
            output: Vec::new(),
            open: None,
            id: String::new(),
            sequence: 0,
            response,
        }
    }

    /// The response so far.
    pub fn response(self) -> Value {
        self.response
    }

    /// The first events.
    fn begin(&mut self) -> Vec<Value> {
        let response = self.response.clone();
        vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
        ]
    }

    /// Takes a piece of the answer.
    pub fn take(&mut self, event: ChatEvent) -> Vec<Value> {
        match event {
            ChatEvent::Text(text) => {
                let is_open = matches!(self.open, Some(Open::Message { .. }));
                let mut events = if is_open { Vec::new() } else { self.open_message(None) };
                events.push(self.text_delta(&text));
                events
            }
            ChatEvent::Thought(text) => {
                let is_open = matches!(self.open, Some(Open::Reasoning { .. }));
                let mut events = if is_open { Vec::new() } else { self.open_reasoning() };
                events.push(self.thought_delta(&text));
                events
            }
            ChatEvent::CallStart { id, name } => self.open_call(id, name),
            ChatEvent::CallArguments(text) => self.arguments(&text),
            ChatEvent::CallEnd => self.close("completed"),
            ChatEvent::Malformed { text, reason } => {
                let mut events = self.open_message(Some(reason));
                events.push(self.text_delta(&text));
                events.extend(self.close("completed"));
                events
            }
        }
    }

    /// Ends the response.
    pub fn end(&mut self, end: &End) -> Vec<Value> {
        let is_cut = matches!(end.reason, EndReason::Length | EndReason::ContextFull);
        let status = if is_cut { "incomplete" } else { "completed" };
        let mut events = self.close(status);
        self.response = self.object.with(status, &self.output);
        self.response["usage"] = usage_json(&end.usage);
        if is_cut {
            self.response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        let response = self.response.clone();
        events.push(self.event(&format!("response.{status}"), json!({"response": response})));
        events
    }

    /// Ends a response that failed.
    fn fail(&mut self, error: &ApiError) -> Vec<Value> {
        self.response = self.object.with("failed", &self.output);
        self.response["error"] = json!({"code": "server_error", "message": error.message()});
        let response = self.response.clone();
        vec![self.event("response.failed", json!({"response": response}))]
    }

    fn event(&mut self, kind: &str, mut fields: Value) -> Value {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        fields
    }

    /// An event about the open item.
    fn item_event(&mut self, kind: &str, mut fields: Value) -> Value {
        fields["item_id"] = json!(self.id);
        fields["output_index"] = json!(self.output.len());
        self.event(kind, fields)
    }

    /// An event about the only part of the open item.
    fn part_event(&mut self, kind: &str, mut fields: Value) -> Value {
        fields["content_index"] = json!(0);
        self.item_event(kind, fields)
    }

    fn added(&mut self, item: Value) -> Value {
        let at = self.output.len();
        self.event("response.output_item.added", json!({"output_index": at, "item": item}))
    }

    fn open_message(&mut self, malformed: Option<String>) -> Vec<Value> {
        let mut events = self.close("completed");
        self.id = new_id("msg_");
        let item = items::message(&self.id, "in_progress", None, malformed.as_deref());
        self.open = Some(Open::Message { text: String::new(), malformed });
        events.push(self.added(item));
        let part = json!({"part": items::text_part("")});
        events.push(self.part_event("response.content_part.added", part));
        events
    }

    fn open_reasoning(&mut self) -> Vec<Value> {
        let mut events = self.close("completed");
        self.id = new_id("rs_");
        let item = items::reasoning(&self.id, "in_progress", None, self.with_encrypted);
        self.open = Some(Open::Reasoning { text: String::new() });
        events.push(self.added(item));
        let part = json!({"part": items::thought_part("")});
        events.push(self.part_event("response.content_part.added", part));
        events
    }

    fn open_call(&mut self, call_id: String, name: String) -> Vec<Value> {
        let mut events = self.close("completed");
        let kind = self.tools.kind(&name);
        self.id = new_id(if kind == Kind::Custom { "ctc_" } else { "fc_" });
        let item = items::call(&kind, [&self.id, &call_id], &name, "in_progress", "");
        self.open = Some(Open::Call { call_id, name, kind, arguments: String::new() });
        events.push(self.added(item));
        events
    }

    fn text_delta(&mut self, piece: &str) -> Value {
        if let Some(Open::Message { text, .. }) = &mut self.open {
            *text += piece;
        }
        self.part_event("response.output_text.delta", json!({"delta": piece, "logprobs": []}))
    }

    fn thought_delta(&mut self, piece: &str) -> Value {
        if let Some(Open::Reasoning { text }) = &mut self.open {
            *text += piece;
        }
        self.part_event("response.reasoning_text.delta", json!({"delta": piece}))
    }

    /// Takes a piece of a call's arguments. The text of a custom tool comes as a whole.
    fn arguments(&mut self, piece: &str) -> Vec<Value> {
        let Some(Open::Call { kind, arguments, .. }) = &mut self.open else { return Vec::new() };
        *arguments += piece;
        match kind {
            Kind::Custom => Vec::new(),
            _ => {
                let kind = "response.function_call_arguments.delta";
                vec![self.item_event(kind, json!({"delta": piece}))]
            }
        }
    }

    /// Closes the open item.
    fn close(&mut self, status: &str) -> Vec<Value> {
        let (mut events, item) = match self.open.take() {
            None => return Vec::new(),
            Some(Open::Message { text, malformed }) => {
                let done = json!({"text": text, "logprobs": []});
                let part = json!({"part": items::text_part(&text)});
                let events = vec![
                    self.part_event("response.output_text.done", done),
                    self.part_event("response.content_part.done", part),
                ];
                (events, items::message(&self.id, status, Some(&text), malformed.as_deref()))
            }
            Some(Open::Reasoning { text }) => {
                let part = json!({"part": items::thought_part(&text)});
                let events = vec![
                    self.part_event("response.reasoning_text.done", json!({"text": text})),
                    self.part_event("response.content_part.done", part),
                ];
                (events, items::reasoning(&self.id, status, Some(&text), self.with_encrypted))
            }
            Some(Open::Call { call_id, name, kind, arguments }) => {
                let events = self.call_done(&kind, &name, &arguments);
                let ids = [self.id.as_str(), &call_id];
                (events, items::call(&kind, ids, &name, status, &arguments))
            }
        };
        let done = json!({"output_index": self.output.len(), "item": item});
        events.push(self.event("response.output_item.done", done));
        self.output.push(item);
        events
    }

    fn call_done(&mut self, kind: &Kind, name: &str, arguments: &str) -> Vec<Value> {
        if *kind == Kind::Custom {
            let input = items::custom_input(arguments);
            let done = "response.custom_tool_call_input.done";
            return vec![
                self.item_event("response.custom_tool_call_input.delta", json!({"delta": input})),
                self.item_event(done, json!({"input": input})),
            ];
        }
        let name = match kind {
            Kind::Within { name, .. } => name,
            _ => name,
        };
        let done = json!({"arguments": arguments, "name": name});
        vec![self.item_event("response.function_call_arguments.done", done)]
    }
}
