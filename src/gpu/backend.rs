//! [`Backend`] on a wgpu device.

use std::collections::HashMap;

#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::model::warm_up::WarmUp;
use crate::{
    backend::{
        Backend, BackendInfo, KernelTime, SequenceStep, Sequences, StepInput, StepResult, Ticket,
        suppressible,
    },
    error::{Error, Result},
    gpu::{
        device::{
            buffers::GpuBuffer,
            dispatch::Dispatch,
            gpu::{Done, Gpu, Mapping},
            grid::StepSize,
            profile,
        },
        model::{
            forward::{GpuWeights, Model, Trunk},
            head::OutputHead,
            layers::LayerCache,
            outputs::{LogitsUse, OutputBlock, OutputRequest, ReadbackSlot},
            step::{StepRow, StepShape, logit_rows, max_decode_rows, max_step_tokens, step_size},
            suppressed::Suppressed,
            workspace::Workspace,
        },
        weights::{
            store::GpuStore,
            synthetic::{SyntheticSource, SyntheticStore},
        },
    },
    model::{
        config::ModelConfig,
        source::{LocalBoxFuture, TensorSource},
        weights::{self, LoadOptions, ModelWeights},
    },
};

/// A submitted step.
struct Pending {
    submission: wgpu::SubmissionIndex,
    /// `None` where no result is wanted.
    mapping: Option<Mapping>,
    done: Option<Done>,
    /// The word of the results that says whether a persistent kernel failed.
    fault_word: Option<usize>,
    slots: Vec<ReadbackSlot>,
}

/// A model on a wgpu device.
pub struct GpuBackend {
    gpu: Gpu,
    model: Model,
    weight_bytes: u64,
    sequences: Sequences,
    trunks: HashMap<StepShape, Trunk>,
    heads: HashMap<StepShape, OutputHead>,
    pending: HashMap<u64, Pending>,
    next_ticket: u64,
    /// Readback buffers to use again.
    readbacks: Vec<GpuBuffer>,
    suppressed: Suppressed,
    /// Tokens up to which a step runs matrix-vector products.
    max_decode_rows: usize,
    /// Rows of logits that one pass of the head makes.
    logit_rows: usize,
}

/// What a model's options ask of a device, checked and allocated before its weights.
struct Reservation {
    sequences: Sequences,
    caches: Vec<LayerCache>,
}

impl Reservation {
    fn new(gpu: &Gpu, config: &ModelConfig, options: &LoadOptions) -> Result<Reservation> {
        config.validate()?;
        let max_step_tokens = max_step_tokens(gpu, options);
        let sequences = Sequences::new(config, options, max_step_tokens)?;
        let cache = |layer| LayerCache::new(gpu, layer, options, max_step_tokens);
        let caches = config.cached_layers().iter().map(cache).collect::<Result<_>>()?;
        Ok(Reservation { sequences, caches })
    }
}

impl GpuBackend {
    /// Loads a model: `progress` is told bytes of the checkpoint consumed since it was last called.
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
        let mut store = GpuStore::new(gpu.clone(), &weights::plan(source, options.quantize)?)?;
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
        let mut store =
            SyntheticStore::new(gpu.clone(), &weights::plan(&source, options.quantize)?, seed);
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
        let (max_decode_rows, config) = (max_decode_rows(gpu.target()), config.clone());
        let mut model = Model::new(gpu.clone(), config, weights, caches, workspace, options)?;
        model.prepare_decoding().await?;
        let mut backend = GpuBackend {
            gpu,
            model,
            weight_bytes,
            sequences,
            trunks: HashMap::new(),
            heads: HashMap::new(),
            pending: HashMap::new(),
            next_ticket: 0,
            readbacks: Vec::new(),
            suppressed: Suppressed::default(),
            max_decode_rows,
            logit_rows,
        };
        backend.prepare(StepShape::Decode, StepShape::Decode)?;
        backend.gpu.keep_pipelines();
        Ok(backend)
    }

    /// Builds the dispatches for a shape of step unless they exist.
    fn prepare(&mut self, trunk: StepShape, head: StepShape) -> Result<()> {
        if !self.trunks.contains_key(&trunk) {
            self.trunks.insert(trunk, self.model.trunk(trunk)?);
        }
        if !self.heads.contains_key(&head) {
            self.heads.insert(head, self.model.head(head)?);
        }
        Ok(())
    }

    /// The rows of a sound step.
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

    /// Runs the head for output rows `block` of the step and copies their logits to `readback`.
    fn head_block(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        shape: StepShape,
        block: &OutputBlock,
        to: Option<(&GpuBuffer, u64)>,
    ) {
        let head = &self.heads[&shape];
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let step = StepSize { outputs: block.rows.len(), ..StepSize::default() };
        encode_all(&head.logits, &mut pass, step);
        encode_all(self.suppression(&block.usage), &mut pass, step);
        encode_all(head.choice(&block.usage), &mut pass, step);
        drop(pass);
        if let Some((readback, offset)) = to {
            let (logits, bytes) = (&self.model.workspace.logits, self.logit_bytes(block));
            encoder.copy_buffer_to_buffer(logits, 0, readback, offset, bytes);
        }
    }

    /// What keeps tokens from being chosen: logits that are read stay as they are.
    fn suppression(&self, usage: &LogitsUse) -> Option<&Dispatch> {
        match usage {
            LogitsUse::Logits => None,
            LogitsUse::Greedy | LogitsUse::Sample(_) => self.suppressed.dispatch(),
        }
    }

    /// Times the kernels of a checked step; logits beyond what one pass of the head makes are left
    /// out.
    async fn time(
        &mut self,
        rows: Vec<StepRow>,
        request: OutputRequest,
    ) -> Result<Vec<KernelTime>> {
        let shape = StepShape::of_rows(&rows, self.max_decode_rows);
        let blocks = request.blocks(self.logit_rows);
        let block = blocks.first();
        let outputs = block.map_or(0, |block| block.rows.len());
        let of_head = StepShape::of_outputs(outputs, self.max_decode_rows);
        self.prepare(shape, of_head)?;
        self.gpu.queue().write_buffer(&self.model.workspace.rows, 0, bytemuck::cast_slice(&rows));
        self.write_step(rows.len(), outputs, block);
        let size = step_size(&rows);
        let trunk = self.trunks[&shape].steps(block.is_some());
        let mut dispatches: Vec<_> = trunk.iter().map(|dispatch| (dispatch, size)).collect();
        if let Some(block) = block {
            let (head, size) = (&self.heads[&of_head], StepSize { outputs, ..StepSize::default() });
            dispatches.extend(head.logits.iter().map(|dispatch| (dispatch, size)));
            dispatches.extend(
                self.suppression(&block.usage).into_iter().map(|dispatch| (dispatch, size)),
            );
            dispatches.extend(head.choice(&block.usage).iter().map(|dispatch| (dispatch, size)));
        }
        profile::run(&self.gpu, &dispatches).await
    }

    /// Submits the trunk and the head of a checked step.
    fn run(&mut self, rows: &[StepRow], request: &OutputRequest) -> Result<Pending> {
        let shape = StepShape::of_rows(rows, self.max_decode_rows);
        let blocks = request.blocks(self.logit_rows);
        let head_shape = |block: &OutputBlock, most| StepShape::of_outputs(block.rows.len(), most);
        self.prepare(shape, StepShape::Decode)?;
        for block in &blocks {
            self.prepare(shape, head_shape(block, self.max_decode_rows))?;
        }
        let words = request.words(self.model.config().vocab_size);
        let readback = match words {
            0 => None,
            // One more for the fault word.
            words => Some(self.readback(4 * (words as u64 + 1))?),
        };
        let queue = self.gpu.queue();
        queue.write_buffer(&self.model.workspace.rows, 0, bytemuck::cast_slice(rows));
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let first_outputs = blocks.first().map_or(0, |block| block.rows.len());
        self.write_step(rows.len(), first_outputs, blocks.first());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        encode_all(self.trunks[&shape].steps(!blocks.is_empty()), &mut pass, step_size(rows));
        drop(pass);
        let mut logits_at = 0;
        for (index, block) in blocks.iter().enumerate() {
            if index > 0 {
                // The next block's inputs must not overwrite those of work that is not submitted
                // yet.
                let encoded = std::mem::replace(
                    &mut encoder,
                    self.gpu.device().create_command_encoder(&Default::default()),
                );
                queue.submit([encoded.finish()]);
                self.write_step(rows.len(), block.rows.len(), Some(block));
            }
            let logits = matches!(block.usage, LogitsUse::Logits);
            let to = readback.as_ref().filter(|_| logits).map(|buffer| (buffer, logits_at));
            self.head_block(&mut encoder, head_shape(block, self.max_decode_rows), block, to);
            if logits {
                logits_at += self.logit_bytes(block);
            }
        }
        if let Some(readback) = &readback {
            self.copy_tokens(&mut encoder, request, readback);
        }
        let submission = queue.submit([encoder.finish()]);
        let done = readback.is_none().then(|| self.gpu.done());
        let mapping =
            readback.map(|buffer| self.gpu.map(buffer, wgpu::MapMode::Read, submission.clone()));
        Ok(Pending {
            submission,
            mapping,
            done,
            fault_word: self.model.persistent.as_ref().map(|_| words),
            slots: request.slots(self.model.config().vocab_size),
        })
    }

    fn logit_bytes(&self, block: &OutputBlock) -> u64 {
        4 * (block.rows.len() * self.model.config().vocab_size) as u64
    }

    /// Copies the tokens that the step chooses, then the fault word, behind the logits.
    fn copy_tokens(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        request: &OutputRequest,
        readback: &GpuBuffer,
    ) {
        let vocab = self.model.config().vocab_size;
        for (slot, word) in request.sampled_slots().zip(request.logit_rows * vocab..) {
            let (from, to) = (4 * slot as u64, 4 * word as u64);
            encoder.copy_buffer_to_buffer(&self.model.workspace.sampled, from, readback, to, 4);
        }
        if let Some(persistent) = &self.model.persistent {
            let to = 4 * request.words(vocab) as u64;
            encoder.copy_buffer_to_buffer(persistent.fault(), 0, readback, to, 4);
        }
    }

    fn write_step(&self, rows: usize, outputs: usize, block: Option<&OutputBlock>) {
        let (queue, workspace) = (self.gpu.queue(), &self.model.workspace);
        queue.write_buffer(
            &workspace.step,
            0,
            bytemuck::cast_slice(&[rows as u32, outputs as u32]),
        );
        if let Some(block) = block {
            queue.write_buffer(&workspace.outputs, 0, bytemuck::cast_slice(&block.rows));
            if let LogitsUse::Sample(draws) = &block.usage {
                queue.write_buffer(&workspace.draws, 0, bytemuck::cast_slice(draws));
            }
        }
    }

    fn readback(&mut self, bytes: u64) -> Result<GpuBuffer> {
        let size = bytes.max(16).next_multiple_of(16);
        match self.readbacks.iter().position(|buffer| buffer.size() == size) {
            Some(index) => Ok(self.readbacks.swap_remove(index)),
            None => self.gpu.readback_buffer(bytes),
        }
    }

    /// After a fault of a persistent kernel: later steps run without them.
    fn drop_persistent(&mut self) -> Error {
        log::warn!("decoding runs without persistent kernels from now on");
        self.model.persistent = None;
        self.trunks.remove(&StepShape::Decode);
        let reason = "workgroups that wait for one another did not run at the same time: \
                      from now on none wait";
        Error::Device(format!("{reason} (--kernels persistent=off from the start)"))
    }

    async fn finish(&mut self, ticket: Ticket) -> Result<Vec<StepResult>> {
        let pending = self
            .pending
            .remove(&ticket.0)
            .ok_or_else(|| Error::Input("the step was read before".into()))?;
        let Some(mapping) = pending.mapping else {
            self.gpu.wait_for(&pending.submission)?;
            if let Some(done) = pending.done {
                let _ = done.await;
                self.gpu.check()?;
            }
            return Ok(pending.slots.iter().map(|_| StepResult::None).collect());
        };
        let (words, buffer) = self.gpu.read::<u32>(mapping).await?;
        if self.readbacks.len() < 4 {
            self.readbacks.push(buffer);
        }
        if pending.fault_word.is_some_and(|word| words[word] != 0) {
            return Err(self.drop_persistent());
        }
        pending.slots.iter().map(|slot| slot.result(&words)).collect()
    }
}

fn encode_all<'d>(
    dispatches: impl IntoIterator<Item = &'d Dispatch>,
    pass: &mut wgpu::ComputePass<'_>,
    step: StepSize,
) {
    for dispatch in dispatches {
        dispatch.encode(pass, step);
    }
}

impl Backend for GpuBackend {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "wgpu",
            device: self.gpu.facts().to_string(),
            context_length: self.sequences.context_length,
            max_sequences: self.sequences.max_sequences,
            max_step_tokens: self.sequences.max_step_tokens,
            weight_bytes: self.weight_bytes,
            table_bytes: self.model.table_bytes(),
            kv_bytes: self.model.kv_bytes(),
            peak_bytes: self.gpu.peak_bytes(),
        }
    }

    fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    fn sequences_mut(&mut self) -> &mut Sequences {
        &mut self.sequences
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        let vocab = self.model.config().vocab_size;
        let ids = suppressible(ids, vocab)?;
        self.suppressed.set(&self.gpu, &self.model.workspace.logits, vocab, ids)
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.sequences.check(step)?;
        let rows = self.rows(step)?;
        let pending = self.run(&rows, &OutputRequest::new(step, &rows))?;
        self.sequences.advance(step);
        self.next_ticket += 1;
        self.pending.insert(self.next_ticket, pending);
        Ok(Ticket(self.next_ticket))
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
        Box::pin(async move { self.time(checked?, request).await })
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        Box::pin(self.finish(ticket))
    }
}

#[cfg(test)]
mod tests;
