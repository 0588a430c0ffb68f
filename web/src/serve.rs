//! A loaded model that answers one order after another, and keeps what two prompts have in common.

use std::{borrow::Cow, cell::Cell, rc::Rc};

use futures_channel::{mpsc::UnboundedReceiver, oneshot};
use gemma4_wgpu::{
    Error, Result,
    generate::{Generator, Request},
    gpu::{Gpu, GpuBackend},
    text::{ChatTemplate, RenderOptions, TextAssets, TextStream, Tokenizer, stop_ids},
};
use js_sys::Function;
use wasm_bindgen::JsValue;

use crate::options::{Answer, Chat, Prompt};

/// A wish for one answer.
pub struct Order {
    pub prompt: Prompt,
    pub options: Chat,
    /// Is called with the text and the id of each token.
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
}

impl Text {
    pub fn new(mut assets: TextAssets) -> Result<Text> {
        let tokenizer = Tokenizer::new(&assets)?;
        let template = match ChatTemplate::new(&assets, &tokenizer) {
            Err(Error::Template(reason)) => Err(reason.replace("use --raw-prompt", "it only completes texts")),
            template => Ok(template?),
        };
        assets.eos_ids = stop_ids(&assets, &tokenizer, template.as_ref().ok());
        // The largest part, and of no more use.
        assets.vocabulary = None;
        Ok(Text { assets, tokenizer, template })
    }

    fn tokens(&self, prompt: &Prompt, thinking: bool) -> Result<Vec<u32>> {
        let text = match prompt {
            Prompt::Text(text) => Cow::Borrowed(text.as_str()),
            Prompt::Messages(messages) => {
                let options = RenderOptions { add_generation_prompt: true, enable_thinking: thinking };
                let template = self.template.as_ref().map_err(|reason| Error::Template(reason.clone()))?;
                Cow::Owned(template.render(messages, &options)?)
            }
        };
        self.tokenizer.encode_prompt(&text, true)
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

async fn answer(generator: &mut Generator<'_>, text: &Text, order: &Order, stopped: &Cell<bool>) -> Result<String> {
    let prompt = text.tokens(&order.prompt, order.options.thinking)?;
    let sampling = order.options.sampling(&text.assets.sampling)?;
    let mut stream = TextStream::new(&text.tokenizer);
    let tell = |piece: String, token: JsValue| {
        // The listener posts a message, which cannot fail.
        let _ = order.on_token.call2(&JsValue::NULL, &piece.into(), &token);
    };
    let request = Request {
        prompt: &prompt,
        sampling,
        max_new_tokens: order.options.max_tokens,
        eos_ids: &text.assets.eos_ids,
        suppressed_ids: &text.assets.suppressed_ids,
        cancelled: &|| stopped.get(),
    };
    let generation = generator.generate(&request, &mut |token| tell(stream.push(token), token.into())).await?;
    let rest = stream.flush();
    if !rest.is_empty() {
        tell(rest, JsValue::UNDEFINED);
    }
    let answer = Answer::new(&generation, generator.backend().info().peak_bytes);
    serde_json::to_string(&answer).map_err(|error| Error::Input(format!("the answer as JSON: {error}")))
}
