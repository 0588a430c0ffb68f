//! Answers as lines.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::server::app::App;
use crate::server::chat::{ChatEvent, EndReason, Piece};
use crate::server::error::ApiError;

/// The form of a line: that of `/api/chat` or of `/api/generate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Chat,
    Generate,
}

/// What a piece of an answer becomes.
pub enum Line {
    Nothing,
    Part(Value),
    Last(Value),
    Failed(ApiError),
}

/// Makes the lines of an answer.
pub struct Lines {
    model: String,
    form: Form,
    start: Instant,
    first: Option<Duration>,
    /// The call that is being written: id, name and arguments.
    call: Option<(String, String, String)>,
    calls: usize,
}

impl Lines {
    pub fn new(app: &App, form: Form) -> Lines {
        let model = app.options.model.clone();
        Lines { model, form, start: Instant::now(), first: None, call: None, calls: 0 }
    }

    /// The answer to a request that only loads the model.
    pub fn loaded(&self) -> Value {
        let mut line = self.line(json!({"content": ""}));
        line["done"] = json!(true);
        line["done_reason"] = json!("load");
        line
    }

    pub fn take(&mut self, piece: Piece) -> Line {
        self.first.get_or_insert_with(|| self.start.elapsed());
        match piece {
            Piece::Event(event) => self.event(event).map_or(Line::Nothing, Line::Part),
            Piece::Token(_) => Line::Nothing,
            Piece::Failed(error) => Line::Failed(error),
            Piece::End(end) => {
                let total = self.start.elapsed();
                let prompt = self.first.unwrap_or(total);
                let mut line = self.line(json!({"content": ""}));
                line["done"] = json!(true);
                line["done_reason"] = json!(match end.reason {
                    EndReason::Length | EndReason::ContextFull => "length",
                    EndReason::Stop | EndReason::StopText(_) | EndReason::ToolCalls => "stop",
                });
                let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                line["total_duration"] = json!(nanos(total));
                line["load_duration"] = json!(0);
                line["prompt_eval_count"] = json!(end.usage.prompt_tokens);
                line["prompt_eval_duration"] = json!(nanos(prompt));
                line["eval_count"] = json!(end.usage.completion_tokens);
                line["eval_duration"] = json!(nanos(total.saturating_sub(prompt)));
                Line::Last(line)
            }
        }
    }

    fn event(&mut self, event: ChatEvent) -> Option<Value> {
        let message = match event {
            ChatEvent::Text(text) => json!({"content": text}),
            ChatEvent::Thought(text) => json!({"content": "", "thinking": text}),
            ChatEvent::CallStart { id, name } => {
                self.call = Some((id, name, String::new()));
                return None;
            }
            ChatEvent::CallArguments(text) => {
                if let Some((_, _, arguments)) = &mut self.call {
                    *arguments += &text;
                }
                return None;
            }
            ChatEvent::CallEnd => {
                let (id, name, arguments) = self.call.take()?;
                let arguments: Map<String, Value> =
                    serde_json::from_str(&arguments).unwrap_or_default();
                let index = self.calls;
                self.calls += 1;
                let function = json!({"index": index, "name": name, "arguments": arguments});
                json!({"content": "", "tool_calls": [{"id": id, "function": function}]})
            }
            ChatEvent::Malformed { text, reason } => {
                json!({"content": text, "malformed_tool_call": reason})
            }
        };
        Some(self.line(message))
    }

    /// A line with these fields of a message.
    fn line(&self, mut message: Value) -> Value {
        let mut line = json!({
            "model": self.model,
            "created_at": jiff::Timestamp::now().to_string(),
        });
        match self.form {
            Form::Chat => {
                message["role"] = json!("assistant");
                line["message"] = message;
            }
            Form::Generate => {
                line["response"] = message["content"].take();
                if let Value::Object(message) = message {
                    let others = message.into_iter().filter(|(name, _)| name != "content");
                    others.for_each(|(name, value)| line[name] = value);
                }
            }
        }
        line["done"] = json!(false);
        line
    }

    /// Adds a line to the whole answer. Texts and lists grow, other fields are replaced.
    pub fn join(&self, whole: &mut Value, line: Value) {
        match (whole, line) {
            (Value::Object(whole), Value::Object(line)) => {
                for (name, value) in line {
                    let grows = ["content", "thinking", "response", "tool_calls", "message"];
                    match whole.get_mut(&name).filter(|_| grows.contains(&name.as_str())) {
                        Some(old) => self.join(old, value),
                        None => drop(whole.insert(name, value)),
                    }
                }
            }
            (Value::String(whole), Value::String(more)) => *whole += &more,
            (Value::Array(whole), Value::Array(more)) => whole.extend(more),
            (whole, line) => *whole = line,
        }
    }
}
