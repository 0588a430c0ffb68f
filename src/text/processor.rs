//! All the text around a model: conversations to prompts, answers to events.

use crate::error::{Error, Result};
use crate::text::channels::{AnswerParser, Channels};
use crate::text::message::Message;
use crate::text::template::{ChatTemplate, RenderOptions};
use crate::text::tokenizer::Tokenizer;
use crate::text::turn_end::stop_ids;
use crate::text::{SamplingDefaults, TextAssets};

/// A prompt in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// Whether it is a conversation. The answer to a raw prompt is text alone, and no turn's end
    /// ends it.
    pub is_chat: bool,
}

/// Makes prompts the way that a checkpoint wants them, and reads its answers.
pub struct Processor {
    tokenizer: Tokenizer,
    /// Or why there is none: texts can be completed nevertheless.
    template: Result<ChatTemplate, String>,
    channels: Channels,
    no_channels: Channels,
    eos_ids: Vec<u32>,
    chat_eos_ids: Vec<u32>,
    suppressed_ids: Vec<u32>,
    sampling: SamplingDefaults,
}

impl Processor {
    /// Errors: [`Error::Tokenizer`] where the tokenizer is missing or broken. A chat template that
    /// is missing or broken is an error of [`Self::chat`] only.
    pub fn new(assets: &TextAssets) -> Result<Processor> {
        let tokenizer = Tokenizer::new(assets)?;
        let template = match ChatTemplate::new(assets, &tokenizer) {
            Err(Error::Template(reason)) => Err(reason),
            template => Ok(template?),
        };
        let channels = match &template {
            Ok(template) => Channels::new(&tokenizer, template)?,
            Err(_) => Channels::default(),
        };
        Ok(Processor {
            chat_eos_ids: stop_ids(assets, &tokenizer, template.as_ref().ok()),
            eos_ids: assets.eos_ids.clone(),
            suppressed_ids: assets.suppressed_ids.clone(),
            sampling: assets.sampling,
            no_channels: Channels::default(),
            tokenizer,
            template,
            channels,
        })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Sampling values that the checkpoint recommends.
    pub fn sampling(&self) -> &SamplingDefaults {
        &self.sampling
    }

    /// The chat template. Errors: [`Error::Template`] where it is missing or broken.
    pub fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().map_err(|reason| Error::Template(reason.clone()))
    }

    /// The prompt of a conversation that waits for the model's answer.
    ///
    /// Errors: no usable template, or one that fails on these messages.
    pub fn chat(&self, messages: &[Message], options: &RenderOptions) -> Result<Prompt> {
        let rendered = self.template()?.prompt(messages, options)?;
        Ok(Prompt { tokens: self.tokenizer.encode_rendered(&rendered)?, is_chat: true })
    }

    /// A text to be continued as it is. Control tokens that it spells count.
    ///
    /// Errors: a text that the tokenizer refuses.
    pub fn raw(&self, text: &str) -> Result<Prompt> {
        Ok(Prompt { tokens: self.tokenizer.encode_prompt(text, true)?, is_chat: false })
    }

    /// A parser for the answer to `prompt`.
    pub fn parser(&self, prompt: &Prompt) -> AnswerParser<'_> {
        let channels = if prompt.is_chat { &self.channels } else { &self.no_channels };
        channels.parser(&self.tokenizer, &prompt.tokens)
    }

    /// Ids that end the answer to `prompt`.
    pub fn eos_ids(&self, prompt: &Prompt) -> &[u32] {
        if prompt.is_chat { &self.chat_eos_ids } else { &self.eos_ids }
    }

    /// Ids that are never chosen.
    pub fn suppressed_ids(&self) -> &[u32] {
        &self.suppressed_ids
    }
}
