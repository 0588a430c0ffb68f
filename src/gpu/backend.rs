//! [`Backend`] on a wgpu device.

use crate::backend::{
    Backend, BackendInfo, KernelTime, SequenceStep, Sequences, StepInput, StepResult, Ticket,
    suppressible,
};
use crate::error::Result;
use crate::gpu::device::gpu::Gpu;
use crate::gpu::model::capacity::check_sequences;
use crate::gpu::model::forward::{GpuWeights, Model};
use crate::gpu::model::layers::LayerCache;
use crate::gpu::model::outputs::OutputRequest;
use crate::gpu::model::runner::Runner;
use crate::gpu::model::step::{StepRow, logit_rows, max_step_tokens};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::model::warm_up::WarmUp;
use crate::gpu::model::workspace::Workspace;
use crate::gpu::weights::{store::GpuStore, synthetic::SyntheticStore};
use crate::model::config::ModelConfig;
use crate::model::source::{LocalBoxFuture, TensorSource};
use crate::model::synthetic::SyntheticSource;
use crate::model::weights::{self, LoadOptions, ModelWeights};

/// A model on a wgpu device.
pub struct GpuBackend {
    runner: Runner,
    weight_bytes: u64,
    sequences: Sequences,
    /// Compiles kernels of other steps.
    #[cfg(not(target_arch = "wasm32"))]
    _warm_up: Option<WarmUp>,
}

/// The sizes that a model's options demand of a device, checked and allocated before its weights.
struct Reservation {
    sequences: Sequences,
    caches: Vec<LayerCache>,
}

impl Reservation {
    fn new(gpu: &Gpu, config: &ModelConfig, options: &LoadOptions) -> Result<Reservation> {
        config.validate()?;
        let max_step_tokens = max_step_tokens(gpu, options);
        let sequences = Sequences::new(config, options, max_step_tokens)?;
        check_sequences(gpu, config, options)?;
        let cache = |layer| LayerCache::new(gpu, layer, options, max_step_tokens);
        let caches = config.cached_layers().iter().map(cache).collect::<Result<_>>()?;
        Ok(Reservation { sequences, caches })
    }
}

impl GpuBackend {
    /// Loads a model. `progress` gets the bytes of the checkpoint that were read since its last
    /// call.
    ///
    /// Errors: a broken checkpoint, weights or KV cache beyond the device's limits or memory.
    pub async fn load(
        gpu: Gpu,
        source: &dyn TensorSource,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let reservation = Reservation::new(&gpu, source.config(), options)?;
        #[cfg(not(target_arch = "wasm32"))]
        let warm_up = WarmUp::start(&gpu, source, options).await?;
        let mut store =
            GpuStore::new(gpu.clone(), &weights::planned_tensors(source, options.quantize)?)?;
        let weights = ModelWeights::load(source, options.quantize, &mut store, progress).await?;
        let weight_bytes = store.finish(source).await?;
        #[cfg(not(target_arch = "wasm32"))]
        drop(warm_up);
        Self::new(gpu, source.config(), weights, weight_bytes, reservation, options).await
    }

    /// A model of random weights, made on the device.
    ///
    /// Errors: weights or KV cache beyond the device's limits or memory.
    pub async fn synthetic(
        gpu: Gpu,
        config: ModelConfig,
        options: &LoadOptions,
        seed: u32,
    ) -> Result<Self> {
        let reservation = Reservation::new(&gpu, &config, options)?;
        let source = SyntheticSource::new(config);
        let mut store = SyntheticStore::new(
            gpu.clone(),
            &weights::planned_tensors(&source, options.quantize)?,
            seed,
        );
        let weights =
            ModelWeights::load(&source, options.quantize, &mut store, &mut |_| ()).await?;
        Self::new(gpu, source.config(), weights, store.bytes, reservation, options).await
    }

    async fn new(
        gpu: Gpu,
        config: &ModelConfig,
        weights: GpuWeights,
        weight_bytes: u64,
        Reservation { sequences, caches }: Reservation,
        options: &LoadOptions,
    ) -> Result<Self> {
        let rows = sequences.max_step_tokens;
        let logit_rows = logit_rows(config, options, rows);
        let workspace = Workspace::new(&gpu, gpu.target(), config, options, rows, logit_rows)?;
        let config = config.clone();
        let mut model = Model::new(gpu.clone(), config, weights, caches, workspace, options)?;
        model.prepare_kernels().await?;
        #[cfg(not(target_arch = "wasm32"))]
        let later = model.sources_of_few_rows(options.max_sequences)?;
        let runner = Runner::new(model, logit_rows)?;
        gpu.keep_pipelines();
        Ok(GpuBackend {
            runner,
            weight_bytes,
            sequences,
            #[cfg(not(target_arch = "wasm32"))]
            _warm_up: WarmUp::compile_later(&gpu, later),
        })
    }

    /// The rows of a valid step.
    fn rows(&self, step: &[SequenceStep<'_>]) -> Result<Vec<StepRow>> {
        let mut rows = Vec::new();
        for part in step {
            let sequence = self.sequences.get(part.sequence)?;
            let tokens = match part.input {
                StepInput::Tokens(tokens) => tokens,
                StepInput::Previous => &[StepRow::TAKE_SAMPLED],
            };
            let row = |(position, &token)| StepRow {
                token,
                position,
                slot: sequence.slot as u32,
                unused: 0,
            };
            rows.extend((sequence.len as u32..).zip(tokens).map(row));
        }
        Ok(rows)
    }
}

impl Backend for GpuBackend {
    fn config(&self) -> &ModelConfig {
        self.runner.model.config()
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "wgpu",
            device: self.runner.model.gpu.facts().to_string(),
            context_length: self.sequences.context_length,
            max_sequences: self.sequences.max_sequences,
            max_step_tokens: self.sequences.max_step_tokens,
            weight_bytes: self.weight_bytes,
            unread_bytes: self.runner.model.unread_bytes(),
            kv_bytes: self.runner.model.kv_bytes(),
            peak_bytes: self.runner.model.gpu.peak_bytes(),
        }
    }

    fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    fn sequences_mut(&mut self) -> &mut Sequences {
        &mut self.sequences
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        self.runner.suppress(suppressible(ids, self.config().vocab_size)?)
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.sequences.check(step)?;
        let rows = self.rows(step)?;
        let ticket = self.runner.submit(&rows, &OutputRequest::new(step, &rows))?;
        self.sequences.advance(step);
        Ok(ticket)
    }

    fn profile(
        &mut self,
        step: &[SequenceStep<'_>],
    ) -> LocalBoxFuture<'_, Result<Vec<KernelTime>>> {
        let checked = self.sequences.check(step).and_then(|()| self.rows(step));
        let request =
            checked.as_ref().map(|rows| OutputRequest::new(step, rows)).unwrap_or_default();
        if checked.is_ok() {
            self.sequences.advance(step);
        }
        Box::pin(async move { self.runner.time(checked?, request).await })
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        Box::pin(self.runner.finish(ticket))
    }
}

#[cfg(test)]
mod tests;
