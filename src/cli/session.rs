//! From a prompt to a streamed answer: what one-shot runs and chats share.

use std::{cell::Cell, io::Write, num::NonZeroUsize};

use super::{Exit, interrupt::Work};
use crate::{
    Result,
    generate::{FinishReason, Generation, Generator, Request},
    sampling::SamplingParams,
    text::{ChatTemplate, Message, RenderOptions, TextAssets, TextStream, Tokenizer, stop_ids},
};

/// Turns prompts into tokens the way the checkpoint wants it.
pub struct Prompter {
    pub tokenizer: Tokenizer,
    /// `None` for raw prompts.
    template: Option<ChatTemplate>,
    options: RenderOptions,
    /// Every id that ends an answer.
    pub eos_ids: Vec<u32>,
    /// Ids that are never chosen.
    pub suppressed_ids: Vec<u32>,
}

impl Prompter {
    /// For chat, or for bare text if `raw`.
    pub fn new(assets: &TextAssets, raw: bool, thinking: bool) -> Result<Prompter> {
        let tokenizer = Tokenizer::new(assets)?;
        let template = if raw { None } else { Some(ChatTemplate::new(assets, &tokenizer)?) };
        Ok(Prompter {
            eos_ids: stop_ids(assets, &tokenizer, template.as_ref()),
            suppressed_ids: assets.suppressed_ids.clone(),
            tokenizer,
            template,
            options: RenderOptions { add_generation_prompt: true, enable_thinking: thinking },
        })
    }

    /// Tokens of a conversation that waits for the model's answer; of its last message alone if
    /// prompts are raw.
    pub fn tokens(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let text = match &self.template {
            Some(template) => template.render(messages, &self.options)?,
            None => messages.last().map_or_else(String::new, |message| message.content.clone()),
        };
        self.tokenizer.encode_prompt(&text, true)
    }
}

/// A loaded model with its way of answering.
pub struct Session<'m> {
    pub generator: Generator<'m>,
    pub prompter: &'m Prompter,
    pub sampling: SamplingParams,
    pub max_new_tokens: Option<NonZeroUsize>,
}

/// What the model said.
pub struct Answer {
    pub text: String,
    pub generation: Generation,
}

impl Answer {
    /// Whether Ctrl-C ended it.
    pub fn interrupted(&self) -> bool {
        self.generation.finish_reason == FinishReason::Cancelled
    }
}

impl Session<'_> {
    /// Answers the prompt and writes the text to `out` as it comes. Ctrl-C ends the answer.
    pub fn answer(&mut self, prompt: &[u32], out: &mut dyn Write) -> Result<Answer, Exit> {
        let work = Work::begin();
        let mut stream = TextStream::new(&self.prompter.tokenizer);
        let mut text = String::new();
        let mut failure = None;
        let failed = Cell::new(false);
        let mut write = |piece: String| {
            text += &piece;
            if let Err(error) = out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
                failed.set(true);
                failure.get_or_insert(Exit::from_stdout(error));
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
        let mut on_token = |token| write(stream.push(token));
        let generation = pollster::block_on(self.generator.generate(&request, &mut on_token))?;
        write(stream.flush());
        match failure {
            Some(exit) => Err(exit),
            None => Ok(Answer { text, generation }),
        }
    }
}
