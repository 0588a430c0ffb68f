//! [`Backend`] on a wgpu device.

use std::collections::HashMap;

#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::model::warm_up::WarmUp;
use crate::{
    backend::{
        Backend, BackendInfo, KernelTime, LocalBoxFuture, SequenceId, SequenceStep, Sequences,
        StepResult, StepTokens, Ticket, suppressible,
    },
    checkpoint::TensorSource,
    config::ModelConfig,
    error::{Error, Result},
    gpu::{
        device::{
            buffers::GpuBuffer,
            dispatch::Dispatch,
            gpu::{Done, Gpu, Mapping},
            grid::StepSize,
            profile,
        },
        kernels::MatvecQ8Split,
        model::{
            forward::{GpuWeights, Model, OutputHead, StepShape, Trunk, logit_rows},
            layers::LayerCache,
            outputs::{LogitsUse, OutputBlock, OutputRequest, ReadbackSlot},
            suppressed::Suppressed,
            workspace::Workspace,
        },
        weights::{
            store::GpuStore,
            synthetic::{SyntheticSource, SyntheticStore},
        },
    },
    weights::{self, LoadOptions, ModelWeights},
};

/// Tokens up to which a step runs matrix-vector products.
fn max_decode_rows(gpu: &Gpu) -> usize {
    match MatvecQ8Split::runs_on(gpu.target()) {
        true => MatvecQ8Split::MOST_ROWS,
        // A vector register of rows takes as long as one.
        false if gpu.tuning().row_per_invocation => 1,
        false => 4,
    }
}

/// `token` of a [`StepRow`] that takes the sequence's last token chosen on the device.
const TAKE_SAMPLED: u32 = u32::MAX;

/// One token of a step, as kernels see it (`Row` in shaders/shared/step.wgsl).
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct StepRow {
    token: u32,
    position: u32,
    pub slot: u32,
    unused: u32,
}

/// A submitted step.
struct Pending {
    submission: wgpu::SubmissionIndex,
    /// `None` where no result is wanted.
    mapping: Option<Mapping>,
    done: Option<Done>,
    /// Of the results; one more says whether they count.
    words: usize,
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
}

/// Tokens of the largest step.
pub(super) fn max_step_tokens(gpu: &Gpu, options: &LoadOptions) -> usize {
    gpu.tuning().max_step_tokens.min(options.context_length).max(options.max_sequences)
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
        let caches = Model::caches(gpu, config, options, max_step_tokens)?;
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
        let mut model =
            Model::new(gpu.clone(), config.clone(), weights, caches, workspace, options, rows)?;
        match config.beyond_dense() {
            None => model.choose_persistent().await?,
            Some(what) if gpu.tuning().persistent && gpu.requires_persistent() => {
                return Err(Error::Device(format!(
                    "a model with {what} has no persistent kernel: leave out persistent=on"
                )));
            }
            Some(_) => {}
        }
        model.compile(StepShape::Decode)?;
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
        };
        // Decoding's kernels are compiled now rather than in the middle of the first answer.
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
            let tokens = match part.tokens {
                StepTokens::Host(tokens) => tokens,
                StepTokens::Previous => &[TAKE_SAMPLED],
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
            let bytes = 4 * (block.rows.len() * self.model.config.vocab_size) as u64;
            encoder.copy_buffer_to_buffer(&self.model.workspace.logits, 0, readback, offset, bytes);
        }
    }

    /// What keeps tokens from being chosen: logits that are read stay as they are.
    fn suppression(&self, usage: &LogitsUse) -> Option<&Dispatch> {
        match usage {
            LogitsUse::Logits => None,
            LogitsUse::Greedy | LogitsUse::Sample(_) => self.suppressed.dispatch(),
        }
    }

    /// How a step of these rows is run.
    fn shape(&self, rows: &[StepRow]) -> StepShape {
        let mut slots: Vec<u32> = rows.iter().map(|row| row.slot).collect();
        // A sequence's rows are neighbours.
        slots.dedup();
        let (runs, is_few) = (slots.len(), rows.len() <= max_decode_rows(&self.gpu));
        match rows.len() {
            1 => StepShape::Decode,
            count if is_few && runs == count => StepShape::DecodeBatch(MatvecQ8Split::room(count)),
            count if is_few => StepShape::ShortPrefill(MatvecQ8Split::room(count)),
            _ if runs > 1 => StepShape::MixedBatch,
            _ => StepShape::Prefill,
        }
    }

    /// Times the kernels of a checked step; logits beyond what one pass of the head makes are left
    /// out.
    async fn time(
        &mut self,
        rows: Vec<StepRow>,
        request: OutputRequest,
    ) -> Result<Vec<KernelTime>> {
        let shape = self.shape(&rows);
        let blocks = request.blocks(self.model.logit_rows);
        let block = blocks.first();
        let outputs = block.map_or(0, |block| block.rows.len());
        let of_head = head_shape(outputs, max_decode_rows(&self.gpu));
        self.prepare(shape, of_head)?;
        self.gpu.queue().write_buffer(&self.model.workspace.rows, 0, bytemuck::cast_slice(&rows));
        self.write_step(rows.len(), outputs, block);
        let size = trunk_size(&rows);
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
        let shape = self.shape(rows);
        let blocks = request.blocks(self.model.logit_rows);
        let max_decode_rows = max_decode_rows(&self.gpu);
        let head_shape = |block: &OutputBlock| head_shape(block.rows.len(), max_decode_rows);
        for block in &blocks {
            self.prepare(shape, head_shape(block))?;
        }
        self.prepare(shape, StepShape::Decode)?;

        let words = request.words(self.model.config.vocab_size);
        let readback = match words {
            0 => None,
            // One more: whether workgroups waited in vain.
            words => Some(self.readback(4 * (words as u64 + 1))?),
        };
        let logit_bytes = 4 * self.model.config.vocab_size as u64;
        let (queue, workspace) = (self.gpu.queue(), &self.model.workspace);
        queue.write_buffer(&workspace.rows, 0, bytemuck::cast_slice(rows));
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let first_outputs = blocks.first().map_or(0, |block| block.rows.len());
        self.write_step(rows.len(), first_outputs, blocks.first());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        encode_all(self.trunks[&shape].steps(!blocks.is_empty()), &mut pass, trunk_size(rows));
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
            self.head_block(&mut encoder, head_shape(block), block, to);
            if logits {
                logits_at += logit_bytes * block.rows.len() as u64;
            }
        }
        if let Some(readback) = &readback {
            for (slot, word) in
                request.sampled_slots().zip(request.logit_rows * self.model.config.vocab_size..)
            {
                let (from, to) = (4 * slot as u64, 4 * word as u64);
                encoder.copy_buffer_to_buffer(&workspace.sampled, from, readback, to, 4);
            }
            encoder.copy_buffer_to_buffer(&workspace.fault, 0, readback, 4 * words as u64, 4);
        }
        let submission = queue.submit([encoder.finish()]);
        let done = readback.is_none().then(|| self.gpu.done());
        let mapping =
            readback.map(|buffer| self.gpu.map(buffer, wgpu::MapMode::Read, submission.clone()));
        Ok(Pending {
            submission,
            mapping,
            done,
            words,
            slots: request.slots(self.model.config.vocab_size),
        })
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

    /// After a fault: later steps run without the persistent kernel, and report no fault.
    fn stop_persistent(&mut self) {
        log::warn!("the persistent kernel is no longer used");
        self.model.persistent_workgroups = None;
        self.trunks.remove(&StepShape::Decode);
        self.gpu.queue().write_buffer(&self.model.workspace.fault, 0, &[0; 16]);
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
        if words[pending.words] != 0 {
            self.stop_persistent();
            let reason = "workgroups that wait for one another did not run at the same time: from now on none wait";
            return Err(Error::Device(format!(
                "{reason} (--kernels persistent=off from the start)"
            )));
        }
        pending.slots.iter().map(|slot| slot.result(&words)).collect()
    }
}

/// How the head is run for so many output rows.
fn head_shape(outputs: usize, max_decode_rows: usize) -> StepShape {
    match outputs {
        0 | 1 => StepShape::Decode,
        count if count <= max_decode_rows => StepShape::DecodeBatch(MatvecQ8Split::room(count)),
        _ => StepShape::MixedBatch,
    }
}

fn trunk_size(rows: &[StepRow]) -> StepSize {
    let keys = rows.iter().map(|row| row.position as usize + 1).max().unwrap_or(0);
    StepSize { rows: rows.len(), outputs: 0, keys }
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
        &self.model.config
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
            kv_bytes: self.model.kv_bytes,
            peak_bytes: self.gpu.peak_bytes(),
        }
    }

    fn open_sequence(&mut self) -> Result<SequenceId> {
        self.sequences.open()
    }

    fn close_sequence(&mut self, sequence: SequenceId) {
        self.sequences.close(sequence);
    }

    fn sequence_len(&self, sequence: SequenceId) -> usize {
        self.sequences.len(sequence)
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        self.sequences.truncate(sequence, len)
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        let vocab = self.model.config.vocab_size;
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
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::{
        backend::{StepOutput, StepTokens},
        checkpoint::Checkpoint,
        gpu::device::{kernel_options::KernelOptions, select::DeviceOptions},
    };

    fn demo(chain: bool) -> Result<GpuBackend> {
        let kernels =
            KernelOptions { persistent: Some(chain), dp4a: Some(true), ..KernelOptions::default() };
        let gpu = block_on(Gpu::open(&DeviceOptions { kernels, ..DeviceOptions::default() }))?;
        let options = LoadOptions { context_length: 64, ..LoadOptions::default() };
        block_on(GpuBackend::load(gpu, &Checkpoint::demo()?, &options, &mut |_| ()))
    }

    fn logits(backend: &mut GpuBackend, sequence: SequenceId) -> Result<Vec<StepResult>> {
        let step = SequenceStep {
            sequence,
            tokens: StepTokens::Host(&[5]),
            output: StepOutput::LastLogits,
        };
        let ticket = backend.submit(&[step])?;
        block_on(backend.read(ticket))
    }

    /// A step whose workgroups wait in vain is lost, and the next one is as good as any.
    #[test]
    fn a_fault_ends_chaining() {
        let mut backend = match demo(true) {
            Ok(backend) => backend,
            // Where the persistent kernel cannot run: with subgroups of four.
            Err(error) => {
                assert!(error.to_string().contains("persistent=on"), "{error}");
                return;
            }
        };
        // More than any device runs at the same time.
        backend.model.persistent_workgroups = Some(320);
        backend.trunks.clear();
        let sequence = backend.open_sequence().unwrap();
        let error = logits(&mut backend, sequence).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("from now on none wait"), "{error}");
        backend.truncate(sequence, 0).unwrap();
        let found = logits(&mut backend, sequence).unwrap();

        let mut plain = demo(false).unwrap();
        let sequence = plain.open_sequence().unwrap();
        assert_eq!(found, logits(&mut plain, sequence).unwrap());
    }
}
