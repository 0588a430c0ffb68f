//! From a prompt to a streamed answer: the common part of single answers and chats.

use std::io::Write;

use crate::api::{ChatOptions, Model};
use crate::cli::Exit;
use crate::cli::answer::{AnswerWriter, Thoughts};
use crate::cli::interrupt::Work;
use crate::error::Result;
use crate::generate::{FinishReason, Generation};
use crate::grammar::CompiledRules;
use crate::text::{AnswerParts, Message, Prompt};

/// A loaded model and the options of its answers.
pub struct Session {
    pub model: Model,
    pub options: ChatOptions,
    /// Prompts go to the model unchanged, without a template.
    pub raw: bool,
    /// The form of the answers, if it is limited.
    pub rules: Option<CompiledRules>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// How thoughts are shown.
    pub thoughts: Thoughts,
}

/// The model's answer.
pub struct Answered {
    pub parts: AnswerParts,
    pub generation: Generation,
}

impl Answered {
    /// Whether Ctrl-C ended the answer.
    pub fn interrupted(&self) -> bool {
        self.generation.finish_reason == FinishReason::Cancelled
    }
}

impl Session {
    /// The prompt of a conversation. If prompts are raw, it is the last message alone.
    pub fn prompt(&self, conversation: &[Message]) -> Result<Prompt> {
        match conversation.last() {
            Some(last) if self.raw => self.model.processor()?.raw(&last.content()),
            _ => self.model.chat_prompt(conversation, &self.options),
        }
    }

    /// Answers the prompt and writes the text to `out` as it arrives. Ctrl-C ends the answer.
    pub fn answer(&mut self, prompt: &Prompt, out: &mut dyn Write) -> Result<Answered, Exit> {
        let work = Work::begin();
        let mut writer = AnswerWriter::new(self.thoughts);
        let constraint = self.rules.as_ref().map(|rules| rules.constraint(&prompt.tokens));
        let answer = self.model.answer_with(prompt, &self.options, constraint)?;
        let mut answer = answer.stop_when(|| work.stopped()).stop_at(self.stop.clone());
        for event in &mut answer {
            writer.write(&event?, out).map_err(Exit::from_stdout)?;
        }
        let (parts, generation) = answer.into_parts();
        Ok(Answered { parts, generation })
    }
}
