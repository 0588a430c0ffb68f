//! Answers requests to a loaded model in order, and reuses the common beginning of two prompts.

use std::{borrow::Cow, cell::Cell, rc::Rc};

use futures_channel::{mpsc::UnboundedReceiver, oneshot};
use gemma4_wgpu::{ChatOptions, Error, Model, Result, gpu::Gpu, text::AnswerEvent};
use js_sys::Function;
use wasm_bindgen::JsValue;

use crate::options::{Answer, Prompt};

/// A request for one answer.
pub struct Order {
    pub prompt: Prompt,
    pub options: ChatOptions,
    /// Is called with each piece of the answer's text, and with each piece of its thoughts.
    pub on_token: Function,
    /// Gets an [`Answer`] as JSON.
    pub reply: oneshot::Sender<Result<String>>,
}

/// Answers until no more requests can come, then releases the GPU, if there is one.
pub async fn serve(
    gpu: Option<Gpu>,
    mut model: Model,
    mut orders: UnboundedReceiver<Order>,
    stopped: Rc<Cell<bool>>,
) {
    while let Ok(order) = orders.recv().await {
        let outcome = answer(&mut model, &order, &stopped).await;
        // Nobody receives the answer if the page was closed.
        let _ = order.reply.send(outcome);
    }
    drop(model);
    if let Some(gpu) = gpu {
        gpu.device().destroy();
    }
}

async fn answer(model: &mut Model, order: &Order, stopped: &Cell<bool>) -> Result<String> {
    let answer = match &order.prompt {
        Prompt::Text(text) => model.generate(text, &order.options)?,
        Prompt::Messages(messages) => model.chat(messages, &order.options)?,
    };
    let mut answer = answer.stop_when(|| stopped.get());
    while let Some(event) = answer.next_event().await {
        let event = event?;
        let (content, thought) = pieces(&event);
        if !content.is_empty() || !thought.is_empty() {
            // The callback posts a message, which cannot fail.
            let content = JsValue::from(content.as_ref());
            let _ = order.on_token.call2(&JsValue::NULL, &content, &thought.into());
        }
    }
    let (parts, generation) = answer.into_parts();
    let answer = Answer::new(&generation, &parts, model.info().peak_bytes);
    serde_json::to_string(&answer)
        .map_err(|error| Error::Input(format!("the answer as JSON: {error}")))
}

/// The text and thoughts of an event. A broken call counts as text. So does a channel without
/// thoughts, under its name.
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
