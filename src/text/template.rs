//! Turns conversations into prompts with the checkpoint's chat template, or a built-in one.

use std::sync::Arc;

use minijinja::{Environment, Value, context};

use crate::error::{Error, Result};
use crate::text::marks::{ControlMarks, Guard, Middles, RenderedPrompt};
use crate::text::message::Message;
use crate::text::render_options::RenderOptions;
use crate::text::template_values::{self, Mask};
use crate::text::tokenizer::Tokenizer;
use crate::text::{TextAssets, jinja};

/// Templates for checkpoints without one, and the control tokens that select them.
const BUILT_IN: [([&str; 2], &str); 2] = [
    (["<|turn>", "<turn|>"], include_str!("templates/gemma4.jinja")),
    (["<start_of_turn>", "<end_of_turn>"], include_str!("templates/gemma3.jinja")),
];

/// Name of the only template in its environment.
const NAME: &str = "chat";

/// A chat template, compiled.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    marks: Arc<ControlMarks>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The checkpoint's template. Without one it is the built-in template of the family whose turn
    /// tokens the vocabulary has.
    ///
    /// Errors: [`Error::Template`] for a syntax error, or where neither template exists.
    pub fn new(assets: &TextAssets, tokenizer: &Tokenizer) -> Result<Self> {
        let has_token =
            |token: &&str| tokenizer.id_of(token).is_some_and(|id| tokenizer.is_special(id));
        let built_in = || BUILT_IN.iter().find(|(tokens, _)| tokens.iter().all(has_token));
        let source = match &assets.chat_template {
            Some(source) => source.clone(),
            None => match built_in() {
                Some((_, source)) => (*source).to_owned(),
                None => {
                    return Err(Error::Template(
                        "the checkpoint brings none and its vocabulary has no turn tokens; \
                         it only completes texts (--raw-prompt)"
                            .into(),
                    ));
                }
            },
        };
        let mut environment = jinja::environment().map_err(failed)?;
        let rewritten = jinja::rewrite(&source).map_err(failed)?;
        environment.add_template_owned(NAME, rewritten).map_err(failed)?;
        let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let eos_token = spelling(assets.eos_ids.first().copied());
        let bos_token = spelling(tokenizer.bos_id());
        Ok(ChatTemplate {
            environment,
            source,
            marks: tokenizer.control_marks()?,
            bos_token,
            eos_token,
        })
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template's source contains `text`.
    pub(super) fn spells(&self, text: &str) -> bool {
        self.source.contains(text)
    }

    /// The text of the prompt for a conversation, with control tokens spelled out.
    ///
    /// Errors: [`Error::Template`] with the template's own message, or the place of its failure.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        self.prompt(messages, options).map(|prompt| prompt.text().into_owned())
    }

    /// The prompt for a conversation, for [`Tokenizer::encode_rendered`]. It distinguishes the
    /// template's text from that of messages. Only the template writes control tokens, unless
    /// [`RenderOptions::parse_special`] is set.
    ///
    /// Errors: [`Error::Template`] with the template's own message, or the place of its failure.
    pub fn prompt(&self, messages: &[Message], options: &RenderOptions) -> Result<RenderedPrompt> {
        let plain = self.masked_prompt(messages, options, Middles::Plain)?;
        let mut texts = template_values::texts(messages, options).into_iter();
        if options.parse_special || !texts.any(|text| self.marks.is_middle(&text)) {
            return Ok(plain);
        }
        // Few templates compare a message's text. In these the template's output takes precedence.
        match self.masked_prompt(messages, options, Middles::Masked) {
            Ok(masked) if masked.text() == plain.text() => Ok(masked),
            _ => Ok(plain),
        }
    }

    fn masked_prompt(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        middles: Middles,
    ) -> Result<RenderedPrompt> {
        let texts = template_values::texts(messages, options);
        let texts = texts.iter().map(AsRef::as_ref).chain([self.source.as_str()]);
        let mut guard = Guard::new(&self.marks, middles, texts);
        let mask: &mut Mask<'_> = &mut |text: &str, kept: &[&str]| match options.parse_special {
            true => Ok(text.to_owned()),
            false => guard.mask(text, kept),
        };
        let messages = messages.iter().map(|message| template_values::message(message, mask));
        let messages = messages.collect::<Result<Vec<Value>>>()?;
        let tools = template_values::tools(&options.tools, mask)?;
        let variables = context! {
            messages => messages,
            add_generation_prompt => options.add_generation_prompt,
            enable_thinking => options.enable_thinking,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            tools => tools,
            documents => (),
            ..template_values::variables(&options.variables, mask)?
        };
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let masked = template.render(variables).map_err(failed)?;
        Ok(RenderedPrompt::new(masked, guard.stand_ins()))
    }
}

fn failed(error: minijinja::Error) -> Error {
    Error::Template(jinja::describe(&error))
}
