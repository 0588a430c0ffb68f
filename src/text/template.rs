//! Conversations to prompts: the checkpoint's chat template, or a built-in one.

use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

use super::{TextAssets, Tokenizer, jinja};
use crate::{Error, Result};

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[serde(alias = "developer")]
    System,
    User,
    #[serde(alias = "model")]
    Assistant,
}

impl Role {
    /// The name that templates know.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: content.into() }
    }
}

/// What a template is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderOptions {
    /// End with the beginning of the model's turn.
    pub add_generation_prompt: bool,
    /// Ask models that can for their thoughts.
    pub enable_thinking: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        RenderOptions { add_generation_prompt: true, enable_thinking: false }
    }
}

/// Templates for checkpoints without one, and the control tokens by which they are chosen.
const BUILT_IN: [([&str; 2], &str); 2] = [
    (["<|turn>", "<turn|>"], include_str!("templates/gemma4.jinja")),
    (["<start_of_turn>", "<end_of_turn>"], include_str!("templates/gemma3.jinja")),
];

/// Name of the one template in its environment.
const NAME: &str = "chat";

/// A chat template, compiled.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The checkpoint's template, or where it brings none the built-in one of the model family whose
    /// turn tokens the vocabulary has.
    ///
    /// Errors: [`Error::Template`] for a syntax error, or where neither template exists.
    pub fn new(assets: &TextAssets, tokenizer: &Tokenizer) -> Result<Self> {
        let has_token = |token: &&str| tokenizer.id_of(token).is_some_and(|id| tokenizer.is_special(id));
        let built_in = || BUILT_IN.iter().find(|(tokens, _)| tokens.iter().all(has_token));
        let source = match &assets.chat_template {
            Some(source) => source.clone(),
            None => match built_in() {
                Some((_, source)) => (*source).to_owned(),
                None => {
                    let reason = "the checkpoint brings none and its vocabulary has no turn tokens; use --raw-prompt";
                    return Err(Error::Template(reason.into()));
                }
            },
        };
        let mut environment = jinja::environment().map_err(failed)?;
        let source = jinja::rewrite(&source).map_err(failed)?;
        environment.add_template_owned(NAME, source).map_err(failed)?;
        let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let eos_token = spelling(assets.eos_ids.first().copied());
        Ok(ChatTemplate { environment, bos_token: spelling(assets.bos_id), eos_token })
    }

    /// The prompt for a conversation, with control tokens spelled out: [`Tokenizer::encode_prompt`] reads
    /// it with `special` set. Control tokens that a message's own text spells are read as such, too.
    ///
    /// Errors: [`Error::Template`] with what the template raised or where it failed.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let as_value =
            |message: &Message| context! { role => message.role.name(), content => message.content.as_str() };
        let variables = context! {
            messages => messages.iter().map(as_value).collect::<Vec<Value>>(),
            add_generation_prompt => options.add_generation_prompt,
            enable_thinking => options.enable_thinking,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            tools => (),
            documents => (),
        };
        self.environment.get_template(NAME).and_then(|template| template.render(variables)).map_err(failed)
    }
}

fn failed(error: minijinja::Error) -> Error {
    Error::Template(jinja::describe(&error))
}
