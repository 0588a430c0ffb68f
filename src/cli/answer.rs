//! Writes an answer to standard output, with thoughts and calls set apart.

use std::io::{self, IsTerminal, Write};

use crate::text::AnswerEvent;

/// How thoughts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoughts {
    Hidden,
    /// In the terminal's faint letters.
    Dimmed,
    /// Between a line `Thinking...` and a line `...done thinking.`, as Ollama does.
    Marked,
}

impl Thoughts {
    /// The display that suits standard output if thoughts are `wanted`; otherwise they are hidden.
    pub fn for_stdout(wanted: bool) -> Thoughts {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        match wanted {
            false => Thoughts::Hidden,
            true if io::stdout().is_terminal() && !no_color && !is_dumb => Thoughts::Dimmed,
            true => Thoughts::Marked,
        }
    }
}

/// The last block on the screen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Nothing,
    Content,
    Thought,
    Channel,
    Call,
}

/// Writes the events of one answer.
pub struct AnswerWriter {
    thoughts: Thoughts,
    last: Block,
}

impl AnswerWriter {
    pub fn new(thoughts: Thoughts) -> AnswerWriter {
        AnswerWriter { thoughts, last: Block::Nothing }
    }

    /// Writes one event and flushes.
    pub fn write(&mut self, event: &AnswerEvent, out: &mut dyn Write) -> io::Result<()> {
        match event {
            AnswerEvent::Thought(_) if self.thoughts == Thoughts::Hidden => return Ok(()),
            AnswerEvent::Thought(text) => {
                let is_new = self.enter(Block::Thought, out)?;
                match self.thoughts {
                    // Switched off after each piece, so that an interruption cannot leave the
                    // terminal faint.
                    Thoughts::Dimmed => write!(out, "\x1b[2m{text}\x1b[22m")?,
                    _ if is_new => write!(out, "Thinking...\n{text}")?,
                    _ => write!(out, "{text}")?,
                }
            }
            AnswerEvent::Content(text) => {
                self.enter(Block::Content, out)?;
                write!(out, "{text}")?;
            }
            AnswerEvent::Channel { name, text } if text.is_empty() => {
                self.enter(Block::Nothing, out)?;
                self.enter(Block::Channel, out)?;
                writeln!(out, "[{name}]")?;
            }
            AnswerEvent::Channel { text, .. } => write!(out, "{text}")?,
            AnswerEvent::ToolCall(call) => {
                self.enter(Block::Call, out)?;
                let arguments = serde_json::Value::Object(call.arguments.clone());
                writeln!(out, "[call] {}({arguments})", call.name)?;
            }
            AnswerEvent::BrokenCall(call) => {
                self.enter(Block::Call, out)?;
                writeln!(out, "[broken call: {}] {}", call.reason, call.text)?;
            }
        }
        out.flush()
    }

    /// Separates the next block from the previous one. Returns true if another block begins.
    fn enter(&mut self, block: Block, out: &mut dyn Write) -> io::Result<bool> {
        let before = std::mem::replace(&mut self.last, block);
        if before == block {
            return Ok(false);
        }
        let between = match before {
            Block::Nothing | Block::Call => "",
            Block::Thought if self.thoughts == Thoughts::Marked => "\n...done thinking.\n\n",
            Block::Thought | Block::Channel => "\n\n",
            Block::Content => "\n",
        };
        write!(out, "{between}").map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{BrokenCall, ToolCall};

    fn shown(thoughts: Thoughts, events: &[AnswerEvent]) -> String {
        let (mut writer, mut out) = (AnswerWriter::new(thoughts), Vec::new());
        events.iter().for_each(|event| writer.write(event, &mut out).unwrap());
        String::from_utf8(out).unwrap()
    }

    fn thought(text: &str) -> AnswerEvent {
        AnswerEvent::Thought(text.into())
    }

    fn content(text: &str) -> AnswerEvent {
        AnswerEvent::Content(text.into())
    }

    #[test]
    fn thoughts_are_hidden_dimmed_or_marked() {
        let events = [thought("a"), thought("b"), content("c"), content("d")];
        assert_eq!(shown(Thoughts::Hidden, &events), "cd");
        assert_eq!(shown(Thoughts::Dimmed, &events), "\x1b[2ma\x1b[22m\x1b[2mb\x1b[22m\n\ncd");
        assert_eq!(shown(Thoughts::Marked, &events), "Thinking...\nab\n...done thinking.\n\ncd");
        let again = [thought("a"), content("c"), thought("e")];
        assert_eq!(shown(Thoughts::Hidden, &again), "c");
        let marked = "Thinking...\na\n...done thinking.\n\nc\nThinking...\ne";
        assert_eq!(shown(Thoughts::Marked, &again), marked);
    }

    #[test]
    fn other_channels_and_calls_stand_by_themselves() {
        let plan = |text: &str| AnswerEvent::Channel { name: "plan".into(), text: text.into() };
        let events = [plan(""), plan("one"), plan(" two"), content("x")];
        assert_eq!(shown(Thoughts::Hidden, &events), "[plan]\none two\n\nx");
        let two = [plan(""), plan("one"), plan(""), plan("two")];
        assert_eq!(shown(Thoughts::Hidden, &two), "[plan]\none\n\n[plan]\ntwo");
        let arguments = serde_json::Map::from_iter([("k".to_owned(), 1.into())]);
        let call = AnswerEvent::ToolCall(ToolCall::new("f", arguments));
        let broken = BrokenCall { text: "call:".into(), reason: "why".into() };
        let broken = AnswerEvent::BrokenCall(broken);
        let events = [content("x"), call, broken, content("y")];
        let expected = "x\n[call] f({\"k\":1})\n[broken call: why] call:\ny";
        assert_eq!(shown(Thoughts::Hidden, &events), expected);
    }
}
