//! A loaded model that answers one order after another, and keeps what two prompts have in common.

use std::{borrow::Cow, cell::Cell, rc::Rc};

use futures_channel::{mpsc::UnboundedReceiver, oneshot};
use gemma4_wgpu::{
    Error, Result,
    generate::{Generator, Request},
    gpu::{Gpu, GpuBackend},
    text::{
        AnswerEvent, AnswerParts, Channels, ChatTemplate, RenderOptions, TextAssets, Tokenizer,
        stop_ids,
    },
};
use js_sys::Function;
use wasm_bindgen::JsValue;

use crate::options::{Answer, Chat, Prompt};

/// A wish for one answer.
pub struct Order {
    pub prompt: Prompt,
    pub options: Chat,
    /// Is called with each piece of the answer's text, and with each piece of its thoughts.
    pub on_token: Function,
    /// Gets an [`Answer`] as JSON.
    pub reply: oneshot::Sender<Result<String>>,
}

/// What turns prompts into tokens and tokens into text.
pub struct Text {
    assets: TextAssets,
    tokenizer: Tokenizer,
    /// Or why there is none: texts can be completed nevertheless.
    template: Result<ChatTemplate, String>,
    /// For answers to conversations; none for completed texts.
    channels: Channels,
    no_channels: Channels,
    /// What ends an answer of a conversation: the turn's end, too.
    chat_stop_ids: Vec<u32>,
}

impl Text {
    pub fn new(mut assets: TextAssets) -> Result<Text> {
        let tokenizer = Tokenizer::new(&assets)?;
        let template = match ChatTemplate::new(&assets, &tokenizer) {
            Err(Error::Template(reason)) => {
                Err(reason.replace("use --raw-prompt", "it only completes texts"))
            }
            template => Ok(template?),
        };
        let channels = match &template {
            Ok(template) => Channels::new(&tokenizer, template)?,
            Err(_) => Channels::default(),
        };
        let chat_stop_ids = stop_ids(&assets, &tokenizer, template.as_ref().ok());
        // The largest part, and of no more use.
        assets.vocabulary = None;
        let no_channels = Channels::default();
        Ok(Text { assets, tokenizer, template, channels, no_channels, chat_stop_ids })
    }

    fn tokens(&self, prompt: &Prompt, thinking: bool) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Text(text) => self.tokenizer.encode_prompt(text, true),
            Prompt::Messages(messages) => {
                let options =
                    RenderOptions { enable_thinking: thinking, ..RenderOptions::default() };
                let template =
                    self.template.as_ref().map_err(|reason| Error::Template(reason.clone()))?;
                self.tokenizer.encode_rendered(&template.prompt(messages, &options)?)
            }
        }
    }
}

/// Answers until nobody can order any more, then gives the device back.
pub async fn serve(
    gpu: Gpu,
    mut backend: GpuBackend,
    text: Text,
    mut orders: UnboundedReceiver<Order>,
    stopped: Rc<Cell<bool>>,
) {
    let mut generator = Generator::new(&mut backend);
    while let Ok(order) = orders.recv().await {
        let outcome = answer(&mut generator, &text, &order, &stopped).await;
        // Nobody listens if the page went away.
        let _ = order.reply.send(outcome);
    }
    drop(generator);
    drop(backend);
    gpu.device().destroy();
}

async fn answer(
    generator: &mut Generator<'_>,
    text: &Text,
    order: &Order,
    stopped: &Cell<bool>,
) -> Result<String> {
    let prompt = text.tokens(&order.prompt, order.options.thinking)?;
    let (prompt, channels, eos_ids) = match &order.prompt {
        Prompt::Text(_) => (prompt, &text.no_channels, &text.assets.eos_ids),
        Prompt::Messages(_) => {
            let prompt = text.tokenizer.as_known(prompt, generator.held());
            (prompt, &text.channels, &text.chat_stop_ids)
        }
    };
    let sampling = order.options.sampling(&text.assets.sampling)?;
    let mut parser = channels.parser(&text.tokenizer, &prompt);
    let mut parts = AnswerParts::default();
    let mut tell = |events: Vec<AnswerEvent>| {
        for event in events {
            let (content, thought) = pieces(&event);
            if !content.is_empty() || !thought.is_empty() {
                // The listener posts a message, which cannot fail.
                let content = JsValue::from(content.as_ref());
                let _ = order.on_token.call2(&JsValue::NULL, &content, &thought.into());
            }
            parts.add(event);
        }
    };
    let request = Request {
        prompt: &prompt,
        sampling,
        max_new_tokens: order.options.max_tokens,
        eos_ids,
        suppressed_ids: &text.assets.suppressed_ids,
        cancelled: &|| stopped.get(),
    };
    let generation = generator.generate(&request, &mut |token| tell(parser.push(token))).await?;
    tell(parser.finish());
    let answer = Answer::new(&generation, &parts, generator.backend().info().peak_bytes);
    serde_json::to_string(&answer)
        .map_err(|error| Error::Input(format!("the answer as JSON: {error}")))
}

/// What an event adds to the text and to the thoughts. A call that is none is text; a channel that
/// holds no thoughts is text under its name.
fn pieces(event: &AnswerEvent) -> (Cow<'_, str>, &str) {
    match event {
        AnswerEvent::Content(text) => (text.into(), ""),
        AnswerEvent::Thought(text) => ("".into(), text),
        AnswerEvent::Channel { name, text } if text.is_empty() => {
            let line = format!("\n[{name}]\n");
            (line.into(), "")
        }
        AnswerEvent::Channel { text, .. } => (text.into(), ""),
        AnswerEvent::ToolCall(_) => ("".into(), ""),
        AnswerEvent::BrokenCall(call) => (call.text.as_str().into(), ""),
    }
}
