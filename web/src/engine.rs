//! A model in a browser, for the page's worker.

use std::{cell::Cell, rc::Rc};

use futures_channel::{
    mpsc::{UnboundedSender, unbounded},
    oneshot,
};
use gemma4_wgpu::{
    Error, Model, Result,
    backend::{Backend, BackendInfo},
    checkpoint::Checkpoint,
    gpu::{DeviceOptions, Gpu, GpuBackend},
    model::{
        source::TensorSource,
        weights::{self, LoadOptions},
    },
    text::Processor,
};
use js_sys::{Array, Function};
use serde::Serialize;
use wasm_bindgen::{JsError, JsValue, prelude::wasm_bindgen};

use crate::{
    cpu::Cpu,
    files,
    options::{self, BackendName, Chat, Load},
    serve::{Order, serve},
};

/// `ModelInfo` of web/js/protocol.ts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    model: &'a str,
    backend: &'static str,
    device: String,
    shader_f16: bool,
    subgroups: bool,
    max_binding_bytes: Option<u64>,
    max_buffer_bytes: Option<u64>,
    context_length: usize,
    weight_bytes: u64,
    kv_bytes: u64,
    peak_bytes: u64,
}

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    info: String,
    orders: UnboundedSender<Order>,
    stopped: Rc<Cell<bool>>,
}

#[wasm_bindgen]
impl Engine {
    /// Loads the model of `files`, or the embedded one if there are none. `options` is JSON.
    /// `progress` is called with the bytes read and the total. `pause` returns a promise that is
    /// resolved once the worker's waiting messages are handled.
    pub async fn load(
        files: Array,
        options: String,
        progress: Function,
        pause: Function,
    ) -> Result<Engine, JsError> {
        Ok(load(&files, &options, &progress, pause).await?)
    }

    /// Facts of the model and its device, as JSON.
    pub fn info(&self) -> String {
        self.info.clone()
    }

    /// Answers a conversation, or continues a text. `prompt` and `options` are JSON. `on_token` is
    /// called with each piece of the answer's text, and with each of its thoughts. Returns figures
    /// as JSON.
    pub async fn chat(
        &self,
        prompt: String,
        options: String,
        on_token: Function,
    ) -> Result<String, JsError> {
        self.stopped.set(false);
        let (reply, answered) = oneshot::channel();
        let prompt = options::parse("messages", &prompt)?;
        let options: Chat = options::parse("options", &options)?;
        let order = Order { prompt, options: options.into(), on_token, reply };
        let gone = || Error::Device("the model was disposed".into());
        self.orders.unbounded_send(order).map_err(|_| gone())?;
        Ok(answered.await.map_err(|_| gone())??)
    }

    /// Ends the current answer.
    pub fn stop(&self) {
        self.stopped.set(true);
    }
}

async fn load(
    files: &Array,
    options: &str,
    progress: &Function,
    pause: Function,
) -> Result<Engine> {
    let options: Load = options::parse("options", options)?;
    // The device comes first, so that a browser without one reads no files.
    let gpu = match options.backend {
        BackendName::WebGpu => {
            let browser_subgroups = options.subgroups;
            Some(Gpu::open(&DeviceOptions { browser_subgroups, ..DeviceOptions::default() }).await?)
        }
        BackendName::Cpu => None,
    };
    let checkpoint = match files.length() {
        0 => Checkpoint::demo()?,
        _ => Checkpoint::open_ranged(files::named(files)?).await?,
    };
    let options = options.resolve(checkpoint.config().max_position_embeddings)?;
    let processor = Processor::new(&checkpoint.text_assets()?)?;
    let total = weights::load_bytes(&checkpoint);
    let mut read = 0u64;
    let mut tell = |bytes: u64| {
        read += bytes;
        let _ = progress.call2(&JsValue::NULL, &(read as f64).into(), &(total as f64).into());
    };
    let backend: Box<dyn Backend> = match &gpu {
        Some(gpu) => Box::new(load_on_gpu(gpu, &checkpoint, &options, total, &mut tell).await?),
        None => Box::new(Cpu::load(&checkpoint, &options, pause, &mut tell).await?),
    };
    let info = info(gpu.as_ref(), backend.info(), checkpoint.description())?;
    drop(checkpoint);
    let (orders, waiting) = unbounded();
    let stopped = Rc::new(Cell::new(false));
    let model = Model::new(backend, Some(processor));
    wasm_bindgen_futures::spawn_local(serve(gpu, model, waiting, stopped.clone()));
    Ok(Engine { info, orders, stopped })
}

/// Loads `total` bytes of weights. Releases the device if that fails.
async fn load_on_gpu(
    gpu: &Gpu,
    source: &dyn TensorSource,
    options: &LoadOptions,
    total: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<GpuBackend> {
    let loaded = GpuBackend::load(gpu.clone(), source, options, progress).await;
    loaded.and_then(|backend| gpu.check().map(|()| backend)).map_err(|error| {
        gpu.device().destroy();
        with_sizes(error, total, options)
    })
}

/// A device's refusal, with the requested values.
fn with_sizes(error: Error, total: u64, options: &LoadOptions) -> Error {
    match error {
        Error::Device(reason)
            if reason.contains("out of memory") || reason.contains("in one buffer") =>
        {
            let (size, context) = (total as f64 / 1e9, options.context_length);
            Error::Device(format!(
                "{reason}: the file's weights have {size:.1} GB and the context {context} \
                 positions; a smaller model, a shorter context or fewer programs on the graphics \
                 card would fit"
            ))
        }
        error => error,
    }
}

fn info(gpu: Option<&Gpu>, held: BackendInfo, model: &str) -> Result<String> {
    let info = Info {
        model,
        backend: if gpu.is_some() { "webgpu" } else { "cpu" },
        device: gpu.map_or(held.device, |gpu| gpu.facts().name.clone()),
        shader_f16: gpu.is_some_and(|gpu| gpu.variant().f16),
        subgroups: gpu.is_some_and(|gpu| gpu.variant().subgroups.is_some()),
        max_binding_bytes: gpu.map(|gpu| gpu.facts().max_binding_bytes),
        max_buffer_bytes: gpu.map(|gpu| gpu.facts().max_buffer_bytes),
        context_length: held.context_length,
        weight_bytes: held.weight_bytes,
        kv_bytes: held.kv_bytes,
        peak_bytes: held.peak_bytes,
    };
    serde_json::to_string(&info).map_err(|error| Error::Input(format!("facts as JSON: {error}")))
}
