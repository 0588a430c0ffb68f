//! The text around a model: from conversations to prompts, and from answers to events.

use crate::error::{Error, Result};
use crate::text::channels::{AnswerParser, Channels};
use crate::text::message::Message;
use crate::text::render_options::RenderOptions;
use crate::text::template::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::text::turn_end::stop_ids;
use crate::text::{SamplingDefaults, TextAssets};

/// A prompt in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// Whether it is a conversation. The answer to a raw prompt is only text, and no end of a turn
    /// ends it.
    pub is_chat: bool,
}

/// Makes prompts in the checkpoint's form, and parses its answers.
pub struct Processor {
    tokenizer: Tokenizer,
    /// Or the reason for its absence. Texts can be continued without it.
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
    /// is missing or broken only makes [`Self::chat`] fail.
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

    /// The prompt of a conversation, up to the beginning of the model's answer.
    ///
    /// Errors: no usable template, or one that fails on these messages.
    pub fn chat(&self, messages: &[Message], options: &RenderOptions) -> Result<Prompt> {
        let rendered = self.template()?.prompt(messages, options)?;
        Ok(Prompt { tokens: self.tokenizer.encode_rendered(&rendered)?, is_chat: true })
    }

    /// A text to continue as it is. Control tokens that it spells take effect.
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
