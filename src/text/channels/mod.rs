//! Splits an answer, token by token, into content, thoughts and tool calls.

mod call;
mod event;
mod parts;
mod sorter;
mod spellings;

pub use self::call::{BrokenCall, ToolCall};
pub(super) use self::call::{changed, collect_texts};
pub use self::event::AnswerEvent;
pub use self::parts::AnswerParts;
use self::sorter::Sorter;
use self::spellings::{Mark, SPELLINGS};
use super::{ChatTemplate, StopTexts, TextStream, Tokenizer};
use crate::Result;

/// The marks that divide a model's answers. Some models have none.
///
/// A mark is found by its id, even if the file gives it another type. One that the tokenizer does
/// not read as a single token is also found by its text.
#[derive(Default)]
pub struct Channels {
    by_id: Vec<(u32, Mark)>,
    by_text: Vec<(&'static str, Mark)>,
    turn: Option<u32>,
}

impl Channels {
    /// The marks of a vocabulary, and those that only the chat template spells.
    ///
    /// Errors: [`crate::Error::Tokenizer`] if the tokenizer cannot encode a mark.
    pub fn new(tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Channels> {
        let turn = tokenizer.id_of(spellings::TURN);
        let mut channels = Channels { turn, ..Channels::default() };
        for (spelling, mark) in SPELLINGS {
            let id = tokenizer.id_of(spelling);
            channels.by_id.extend(id.map(|id| (id, mark)));
            let in_use = id.is_some() || template.spells(spelling);
            if in_use && tokenizer.encode(spelling, true)?.as_slice() != id.as_slice() {
                channels.by_text.push((spelling, mark));
            }
        }
        Ok(channels)
    }

    /// A parser for the answer to `prompt`. It begins in the prompt's final state, such as within
    /// an open channel or call.
    pub fn parser<'a>(&'a self, tokenizer: &'a Tokenizer, prompt: &[u32]) -> AnswerParser<'a> {
        let stream = TextStream::new(tokenizer);
        let (held, sorter) = (String::new(), Sorter::default());
        let (stop, stop_text) = (StopTexts::default(), None);
        let mut parser = AnswerParser { channels: self, stream, held, sorter, stop, stop_text };
        if self.by_id.is_empty() && self.by_text.is_empty() {
            return parser;
        }
        // Earlier turns of the conversation are closed.
        let turn = prompt.iter().rposition(|&id| Some(id) == self.turn).unwrap_or(0);
        for &id in &prompt[turn..] {
            parser.push(id);
        }
        parser.stream = TextStream::new(tokenizer);
        parser.held.clear();
        parser.sorter.begin_answer();
        parser
    }

    fn mark_of(&self, id: u32) -> Option<Mark> {
        self.by_id.iter().find(|(mark_id, _)| *mark_id == id).map(|(_, mark)| *mark)
    }

    /// The first mark that `text` spells: its range and meaning.
    fn find(&self, text: &str) -> Option<(std::ops::Range<usize>, Mark)> {
        let found = |&(spelling, mark): &(&str, Mark)| {
            let start = text.find(spelling)?;
            Some((start..start + spelling.len(), mark))
        };
        self.by_text.iter().filter_map(found).min_by_key(|(range, _)| range.start)
    }

    /// Bytes at the end of `text` that may be the beginning of a mark.
    fn begun(&self, text: &str) -> usize {
        let begins = |&(spelling, _): &(&str, Mark)| {
            let mut lengths = (1..spelling.len()).rev();
            lengths.find(|&len| text.ends_with(&spelling[..len]))
        };
        self.by_text.iter().filter_map(begins).max().unwrap_or(0)
    }
}

/// Splits one answer.
///
/// It omits only marks, the line of a channel's name and some whitespace. Whitespace is omitted at
/// both ends of a channel's text. After a channel or call it is omitted unless content is on both
/// sides. An empty line separates two thoughts.
pub struct AnswerParser<'a> {
    channels: &'a Channels,
    stream: TextStream<'a>,
    /// Text that may be the beginning of a mark.
    held: String,
    sorter: Sorter,
    stop: StopTexts,
    /// The one that came.
    stop_text: Option<String>,
}

impl AnswerParser<'_> {
    /// Ends the content before the first of `texts` in it. Thoughts may have them.
    pub fn stop_at(self, texts: Vec<String>) -> Self {
        AnswerParser { stop: StopTexts::new(texts), ..self }
    }

    /// Whether a stop text has come. Nothing follows it.
    pub fn is_stopped(&self) -> bool {
        self.stop_text.is_some()
    }

    /// The stop text that has come.
    pub fn stop_text(&self) -> Option<&str> {
        self.stop_text.as_deref()
    }

    /// Takes the next token and returns the completed events, often none or one piece of text.
    pub fn push(&mut self, id: u32) -> Vec<AnswerEvent> {
        match self.channels.mark_of(id) {
            Some(mark) => {
                self.release();
                let spelling = self.stream.spelling(id);
                self.sorter.mark(mark, &spelling);
            }
            None => {
                let text = self.stream.push(id);
                self.text(&text);
            }
        }
        self.sorted()
    }

    /// Ends the answer in any state, and returns the rest.
    pub fn finish(mut self) -> Vec<AnswerEvent> {
        self.release();
        self.sorter.finish();
        let mut events = self.sorted();
        let rest = self.stop.flush();
        if !rest.is_empty() && !self.is_stopped() {
            events.push(AnswerEvent::Content(rest));
        }
        events
    }

    /// The sorted events up to a stop text.
    fn sorted(&mut self) -> Vec<AnswerEvent> {
        let mut events = Vec::new();
        for event in self.sorter.take() {
            if self.is_stopped() {
                break;
            }
            let (clear, event) = match event {
                AnswerEvent::Content(text) => {
                    let (clear, found) = self.stop.push(&text);
                    self.stop_text = found;
                    (clear, None)
                }
                // A stop text is within one piece of content.
                event => (self.stop.flush(), Some(event)),
            };
            events.extend((!clear.is_empty()).then_some(AnswerEvent::Content(clear)));
            events.extend(event);
        }
        events
    }

    fn text(&mut self, text: &str) {
        if self.channels.by_text.is_empty() {
            return self.sorter.text(text);
        }
        self.held += text;
        while let Some((range, mark)) = self.channels.find(&self.held) {
            self.sorter.text(&self.held[..range.start]);
            self.sorter.mark(mark, &self.held[range.clone()]);
            self.held.drain(..range.end);
        }
        let clear = self.held.len() - self.channels.begun(&self.held);
        self.sorter.text(&self.held[..clear]);
        self.held.drain(..clear);
    }

    /// Passes on held text, because no mark and no character can continue beyond this place.
    fn release(&mut self) {
        let rest = self.stream.cut();
        self.text(&rest);
        let held = std::mem::take(&mut self.held);
        self.sorter.text(&held);
    }
}
