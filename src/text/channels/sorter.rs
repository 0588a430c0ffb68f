//! The parser's state between two tokens of an answer.

use std::mem::take;

use crate::text::channels::call::{self, CallText};
use crate::text::channels::event::AnswerEvent;
use crate::text::channels::spellings::Mark;

/// The channel of thoughts.
const THOUGHT: &str = "thought";

/// Most bytes of a channel's name. A longer first line is a part of the text.
const LONGEST_NAME: usize = 32;

/// The part of the answer that is being read.
#[derive(Default)]
enum State {
    #[default]
    Content,
    /// In the first line of a channel, which is its name.
    Name(String),
    /// In the text of the channel of this name. `begun` is set once some of it has come.
    Channel {
        name: String,
        begun: bool,
    },
    Call(CallText),
}

/// Sorts text by the preceding marks.
#[derive(Default)]
pub(super) struct Sorter {
    state: State,
    events: Vec<AnswerEvent>,
    /// Whitespace that is a part of the answer only if more text follows.
    spaces: String,
    /// No content yet since a channel or call ended.
    after_mark: bool,
    has_content: bool,
    has_thought: bool,
}

impl Sorter {
    /// Keeps the current state, but forgets all earlier text.
    pub(super) fn begin_answer(&mut self) {
        *self = Sorter { state: take(&mut self.state), ..Sorter::default() };
    }

    /// The events since the last call.
    pub(super) fn take(&mut self) -> Vec<AnswerEvent> {
        take(&mut self.events)
    }

    pub(super) fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match &mut self.state {
            State::Content => self.content(text),
            State::Name(_) => self.name(text),
            State::Channel { .. } => self.channel(text),
            State::Call(call) => call.push(text),
        }
    }

    /// Takes a mark and its spelling.
    pub(super) fn mark(&mut self, mark: Mark, spelling: &str) {
        match (&mut self.state, mark) {
            (State::Call(call), Mark::Quote) => call.quote(spelling),
            (State::Call(call), mark) if call.in_string() && mark != Mark::CallClose => {
                // A string may contain the spelling of a mark.
                call.push(spelling);
            }
            (State::Call(call), Mark::ChannelClose | Mark::Silent) => call.push(spelling),
            (_, Mark::ChannelOpen) => self.enter(State::Name(String::new()), false),
            (_, Mark::CallOpen) => self.enter(State::Call(CallText::default()), false),
            (State::Name(_) | State::Channel { .. }, Mark::ChannelClose)
            | (State::Call(_), Mark::CallClose)
            | (_, Mark::Border) => self.enter(State::Content, mark == Mark::CallClose),
            (_, Mark::ChannelClose | Mark::CallClose | Mark::Quote | Mark::Silent) => {}
        }
    }

    /// Ends the answer. Open parts keep their kind.
    pub(super) fn finish(&mut self) {
        if let State::Name(name) = &mut self.state
            && THOUGHT.starts_with(name.as_str())
        {
            *name = THOUGHT.to_owned();
        }
        self.leave(false);
    }

    fn enter(&mut self, next: State, closed: bool) {
        self.leave(closed);
        self.state = next;
    }

    /// Leaves the current state for content. `closed` says whether a call's own mark ends it.
    fn leave(&mut self, closed: bool) {
        let left = take(&mut self.state);
        self.spaces.clear();
        self.after_mark |= !matches!(left, State::Content);
        match left {
            State::Name(name) => self.announce(name.trim_end()),
            State::Call(text) => {
                let (calls, broken) = call::read(text, closed);
                self.events.extend(calls.into_iter().map(AnswerEvent::ToolCall));
                self.events.extend(broken.map(AnswerEvent::BrokenCall));
            }
            State::Content | State::Channel { .. } => {}
        }
    }

    fn content(&mut self, text: &str) {
        let mut text = text;
        if self.after_mark {
            let start = text.len() - text.trim_start().len();
            self.spaces += &text[..start];
            text = &text[start..];
            if text.is_empty() {
                return;
            }
            self.after_mark = false;
        }
        let spaces = take(&mut self.spaces);
        let before = if self.has_content { spaces.as_str() } else { "" };
        self.has_content = true;
        self.events.push(AnswerEvent::Content(format!("{before}{text}")));
    }

    /// Collects the first line of a channel: its name, or a text without one.
    fn name(&mut self, text: &str) {
        let State::Name(line) = &mut self.state else { return };
        line.push_str(text);
        let (name, rest) = match line.split_once('\n') {
            Some((name, rest)) if is_name(name) => (name.trim_end().to_owned(), rest.to_owned()),
            None if is_name(line) => return,
            _ => (String::new(), take(line)),
        };
        self.announce(&name);
        self.state = State::Channel { name, begun: false };
        self.text(&rest);
    }

    fn announce(&mut self, name: &str) {
        if !is_thought(name) {
            self.events.push(AnswerEvent::Channel { name: name.to_owned(), text: String::new() });
        }
    }

    fn channel(&mut self, text: &str) {
        let State::Channel { name, begun } = &mut self.state else { return };
        let end = text.trim_end().len();
        let mut piece = String::new();
        if *begun {
            self.spaces += if end == 0 { text } else { "" };
            if end == 0 {
                return;
            }
            piece += &take(&mut self.spaces);
            piece += &text[..end];
        } else {
            if end == 0 {
                return;
            }
            *begun = true;
            if is_thought(name) && self.has_thought {
                piece += "\n\n";
            }
            piece += text[..end].trim_start();
        }
        self.spaces += &text[end..];
        self.events.push(match is_thought(name) {
            true => {
                self.has_thought = true;
                AnswerEvent::Thought(piece)
            }
            false => AnswerEvent::Channel { name: name.clone(), text: piece },
        });
    }
}

fn is_thought(name: &str) -> bool {
    name.is_empty() || name == THOUGHT
}

/// Whether a line, or its beginning, can be a channel's name.
fn is_name(line: &str) -> bool {
    let name = line.trim_end();
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    line.len() <= LONGEST_NAME && name.chars().all(is_plain)
}
