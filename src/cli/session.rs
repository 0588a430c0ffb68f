//! From a prompt to a streamed answer: what one-shot runs and chats share.

use std::{cell::Cell, io::Write, num::NonZeroUsize};

use crate::{
    cli::{
        Exit,
        answer::{AnswerWriter, Thoughts},
        interrupt::Work,
    },
    error::Result,
    generate::{FinishReason, Generation, Generator, Request},
    sampling::SamplingParams,
    text::{
        self, AnswerParts, ChatTemplate, Message, RenderOptions, TextAssets, Tokenizer, stop_ids,
    },
};

/// Turns prompts into tokens the way the checkpoint wants it.
pub struct Prompter {
    pub tokenizer: Tokenizer,
    /// `None` for raw prompts.
    template: Option<ChatTemplate>,
    options: RenderOptions,
    /// None for raw prompts, whose answers are text.
    channels: text::Channels,
    /// Every id that ends an answer.
    pub eos_ids: Vec<u32>,
    /// Ids that are never chosen.
    pub suppressed_ids: Vec<u32>,
}

impl Prompter {
    /// For chat, or for bare text if `raw`.
    pub fn new(assets: &TextAssets, raw: bool, options: RenderOptions) -> Result<Prompter> {
        let tokenizer = Tokenizer::new(assets)?;
        let template = if raw { None } else { Some(ChatTemplate::new(assets, &tokenizer)?) };
        let channels = match &template {
            Some(template) => text::Channels::new(&tokenizer, template)?,
            None => text::Channels::default(),
        };
        Ok(Prompter {
            eos_ids: stop_ids(assets, &tokenizer, template.as_ref()),
            suppressed_ids: assets.suppressed_ids.clone(),
            tokenizer,
            template,
            options,
            channels,
        })
    }

    /// Tokens of a conversation that waits for the model's answer; of its last message alone if
    /// prompts are raw.
    pub fn tokens(&self, messages: &[Message]) -> Result<Vec<u32>> {
        match (&self.template, messages.last()) {
            (Some(template), _) => {
                self.tokenizer.encode_rendered(&template.prompt(messages, &self.options)?)
            }
            (None, Some(message)) => self.tokenizer.encode_prompt(&message.content, true),
            (None, None) => self.tokenizer.encode_prompt("", true),
        }
    }
}

/// A loaded model with its way of answering.
pub struct Session<'m> {
    pub generator: Generator<'m>,
    pub prompter: &'m Prompter,
    pub sampling: SamplingParams,
    pub max_new_tokens: Option<NonZeroUsize>,
    /// How they are shown.
    pub thoughts: Thoughts,
}

/// What the model said.
pub struct Answer {
    pub parts: AnswerParts,
    pub generation: Generation,
}

impl Answer {
    /// Whether Ctrl-C ended it.
    pub fn interrupted(&self) -> bool {
        self.generation.finish_reason == FinishReason::Cancelled
    }

    /// The answer as a turn of the conversation.
    pub fn into_message(self) -> Message {
        let AnswerParts { content, reasoning, tool_calls, .. } = self.parts;
        Message { reasoning, tool_calls, ..Message::new(text::Role::Assistant, content) }
    }
}

impl Session<'_> {
    /// Answers the prompt and writes the text to `out` as it comes. Ctrl-C ends the answer.
    pub fn answer(&mut self, prompt: &[u32], out: &mut dyn Write) -> Result<Answer, Exit> {
        let work = Work::begin();
        let mut parser = self.prompter.channels.parser(&self.prompter.tokenizer, prompt);
        let mut writer = AnswerWriter::new(self.thoughts);
        let mut parts = AnswerParts::default();
        let mut failure = None;
        let failed = Cell::new(false);
        let mut write = |events: Vec<text::AnswerEvent>| {
            for event in events {
                if let Err(error) = writer.write(&event, out) {
                    failed.set(true);
                    failure.get_or_insert(Exit::from_stdout(error));
                }
                parts.add(event);
            }
        };
        let request = Request {
            prompt,
            sampling: self.sampling,
            max_new_tokens: self.max_new_tokens,
            eos_ids: &self.prompter.eos_ids,
            suppressed_ids: &self.prompter.suppressed_ids,
            cancelled: &|| failed.get() || work.stopped(),
        };
        let mut on_token = |token| write(parser.push(token));
        let generation = pollster::block_on(self.generator.generate(&request, &mut on_token))?;
        write(parser.finish());
        match failure {
            Some(exit) => Err(exit),
            None => Ok(Answer { parts, generation }),
        }
    }
}
