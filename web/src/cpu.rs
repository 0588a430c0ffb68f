//! The CPU as the device of a worker, which must read its messages between two steps.

use gemma4_wgpu::{
    Error, Result,
    backend::{Backend, BackendInfo, SequenceStep, Sequences, StepResult, Ticket},
    cpu::{CpuBackend, CpuOptions},
    model::{
        config::ModelConfig,
        source::{LocalBoxFuture, TensorSource},
        weights::LoadOptions,
    },
};
use js_sys::{Function, Promise};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// Most bytes of weights. WebAssembly addresses 4 GB, also for files and activations.
const MOST_WEIGHT_BYTES: u64 = 1 << 30;

/// A model on the CPU.
pub struct Cpu {
    backend: CpuBackend,
    /// Returns a promise that is resolved once the worker's waiting messages are handled.
    pause: Function,
}

impl Cpu {
    /// As [`CpuBackend::load`], with the fast path.
    ///
    /// Errors: also weights of more than 1 GiB.
    pub async fn load(
        source: &dyn TensorSource,
        options: &LoadOptions,
        pause: Function,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Cpu> {
        let bytes = CpuBackend::plan(source, options)?.weight_bytes;
        if bytes > MOST_WEIGHT_BYTES {
            return Err(Error::Device(format!(
                "the weights have {:.2} GB; a browser's CPU takes at most {:.2} GB: use a browser \
                 with WebGPU, a smaller model or the native program",
                bytes as f64 / 1e9,
                MOST_WEIGHT_BYTES as f64 / 1e9
            )));
        }
        let cpu = CpuOptions::default();
        let backend = CpuBackend::load_with(source, options, &cpu, progress).await?;
        Ok(Cpu { backend, pause })
    }
}

impl Backend for Cpu {
    fn config(&self) -> &ModelConfig {
        self.backend.config()
    }

    fn info(&self) -> BackendInfo {
        self.backend.info()
    }

    fn sequences(&self) -> &Sequences {
        self.backend.sequences()
    }

    fn sequences_mut(&mut self) -> &mut Sequences {
        self.backend.sequences_mut()
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        self.backend.suppress(ids)
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.backend.submit(step)
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        Box::pin(async move {
            let paused = self.pause.call0(&JsValue::NULL).ok();
            if let Some(paused) = paused.and_then(|paused| paused.dyn_into::<Promise>().ok()) {
                // The promise is never rejected.
                let _ = JsFuture::from(paused).await;
            }
            self.backend.read(ticket).await
        })
    }
}
