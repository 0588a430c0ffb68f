//! Runs steps: submits their dispatches and reads their results.

use std::collections::HashMap;

use crate::backend::{KernelTime, StepResult, Ticket};
use crate::error::{Error, Result};
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::device::dispatch::Dispatch;
use crate::gpu::device::gpu::{Done, Gpu, Mapping};
use crate::gpu::device::grid::StepSize;
use crate::gpu::device::profile;
use crate::gpu::model::forward::{Model, Trunk};
use crate::gpu::model::head::OutputHead;
use crate::gpu::model::outputs::{LogitsUse, OutputBlock, OutputRequest, ReadbackSlot};
use crate::gpu::model::step::{RowLimits, StepRow, StepShape, step_size};
use crate::gpu::model::suppressed::Suppressed;

/// Number of readback buffers that are kept for later steps.
const KEPT_READBACKS: usize = 4;

/// A submitted step.
struct Pending {
    submission: wgpu::SubmissionIndex,
    /// `None` where the step has no results.
    mapping: Option<Mapping>,
    done: Option<Done>,
    /// The word of the results that is not 0 if a persistent kernel failed.
    fault_word: Option<usize>,
    slots: Vec<ReadbackSlot>,
}

/// A model, and its dispatches by the shape of a step.
pub(in crate::gpu) struct Runner {
    gpu: Gpu,
    pub model: Model,
    pub trunks: HashMap<StepShape, Trunk>,
    heads: HashMap<StepShape, OutputHead>,
    pending: HashMap<u64, Pending>,
    next_ticket: u64,
    readbacks: Vec<GpuBuffer>,
    suppressed: Suppressed,
    row_limits: RowLimits,
    /// Rows of logits for one pass of the head.
    logit_rows: usize,
}

impl Runner {
    /// Builds the dispatches of decode. Other dispatches are built by the first step that needs
    /// them.
    ///
    /// Errors: a kernel that the driver refuses.
    pub fn new(model: Model, logit_rows: usize) -> Result<Self> {
        let mut runner = Runner {
            gpu: model.gpu.clone(),
            row_limits: RowLimits::of(model.gpu.target()),
            model,
            trunks: HashMap::new(),
            heads: HashMap::new(),
            pending: HashMap::new(),
            next_ticket: 0,
            readbacks: Vec::new(),
            suppressed: Suppressed::default(),
            logit_rows,
        };
        runner.prepare(StepShape::Decode, StepShape::Decode)?;
        Ok(runner)
    }

    /// Suppresses these tokens in later steps. The ids must be in the vocabulary.
    ///
    /// Errors: a kernel that the driver refuses, no memory.
    pub fn suppress(&mut self, ids: Vec<u32>) -> Result<()> {
        let vocab = self.model.config().vocab_size;
        self.suppressed.set(&self.gpu, &self.model.workspace.logits, vocab, ids)
    }

    /// Builds the dispatches for a shape of step unless they exist. Their kernels are compiled
    /// together first.
    fn prepare(&mut self, trunk: StepShape, head: StepShape) -> Result<()> {
        if self.trunks.contains_key(&trunk) && self.heads.contains_key(&head) {
            return Ok(());
        }
        let persistent = self.model.persistent.as_ref();
        self.gpu.compile_together(self.model.sources(trunk, head, persistent)?)?;
        if !self.trunks.contains_key(&trunk) {
            self.trunks.insert(trunk, self.model.trunk(trunk)?);
        }
        if !self.heads.contains_key(&head) {
            self.heads.insert(head, self.model.head(head)?);
        }
        Ok(())
    }

    fn head_shape(&self, block: &OutputBlock) -> StepShape {
        StepShape::of_outputs(block.rows.len(), self.row_limits)
    }

    /// The output head's dispatches for a block. Suppression does not change logits that the host
    /// reads.
    fn head_dispatches(&self, block: &OutputBlock) -> impl Iterator<Item = &Dispatch> {
        let head = &self.heads[&self.head_shape(block)];
        let suppression = match block.usage {
            LogitsUse::Logits => None,
            LogitsUse::Greedy | LogitsUse::Sample(_) => self.suppressed.dispatch(),
        };
        head.logits.iter().chain(suppression).chain(head.choice(&block.usage))
    }

    /// Runs the head for a block of output rows and copies their logits to a readback buffer.
    fn head_block(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        block: &OutputBlock,
        to: Option<(&GpuBuffer, u64)>,
    ) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        encode_all(self.head_dispatches(block), &mut pass, head_size(block));
        drop(pass);
        if let Some((readback, offset)) = to {
            let (logits, bytes) = (&self.model.workspace.logits, self.logit_bytes(block));
            encoder.copy_buffer_to_buffer(logits, 0, readback, offset, bytes);
        }
    }

    /// Times the kernels of a checked step. Logits beyond one pass of the head are left out.
    pub async fn time(
        &mut self,
        rows: Vec<StepRow>,
        request: OutputRequest,
    ) -> Result<Vec<KernelTime>> {
        let shape = StepShape::of_rows(&rows, self.row_limits);
        let blocks = request.blocks(self.logit_rows);
        let block = blocks.first();
        self.prepare(shape, block.map_or(StepShape::Decode, |block| self.head_shape(block)))?;
        self.write_rows(&rows);
        self.write_step(rows.len(), block);
        let size = step_size(&rows);
        let trunk = self.trunks[&shape].steps(block.is_some());
        let mut dispatches: Vec<_> = trunk.iter().map(|dispatch| (dispatch, size)).collect();
        if let Some(block) = block {
            let size = head_size(block);
            dispatches.extend(self.head_dispatches(block).map(|dispatch| (dispatch, size)));
        }
        profile::run(&self.gpu, &dispatches).await
    }

    /// Submits the trunk and the head of a checked step.
    ///
    /// Errors: a kernel that the driver refuses, no memory for the results.
    pub fn submit(&mut self, rows: &[StepRow], request: &OutputRequest) -> Result<Ticket> {
        let shape = StepShape::of_rows(rows, self.row_limits);
        let blocks = request.blocks(self.logit_rows);
        self.prepare(shape, StepShape::Decode)?;
        for block in &blocks {
            self.prepare(shape, self.head_shape(block))?;
        }
        let words = request.words(self.model.config().vocab_size);
        let readback = match words {
            0 => None,
            // One word more, for the fault word.
            words => Some(self.readback(4 * (words as u64 + 1))?),
        };
        let fault_word = self.model.persistent.as_ref().map(|_| words);
        self.write_rows(rows);
        self.write_step(rows.len(), blocks.first());
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        encode_all(self.trunks[&shape].steps(!blocks.is_empty()), &mut pass, step_size(rows));
        drop(pass);
        let mut logits_at = 0;
        for (index, block) in blocks.iter().enumerate() {
            if index > 0 {
                // The next block's inputs must not overwrite the inputs of work that is not
                // submitted yet.
                let encoded = std::mem::replace(
                    &mut encoder,
                    self.gpu.device().create_command_encoder(&Default::default()),
                );
                self.gpu.queue().submit([encoded.finish()]);
                self.write_step(rows.len(), Some(block));
            }
            let logits = matches!(block.usage, LogitsUse::Logits);
            let to = readback.as_ref().filter(|_| logits).map(|buffer| (buffer, logits_at));
            self.head_block(&mut encoder, block, to);
            if logits {
                logits_at += self.logit_bytes(block);
            }
        }
        if let Some(readback) = &readback {
            self.copy_tokens(&mut encoder, request, readback);
        }
        let submission = self.gpu.queue().submit([encoder.finish()]);
        let done = readback.is_none().then(|| self.gpu.done());
        let mapping =
            readback.map(|buffer| self.gpu.map(buffer, wgpu::MapMode::Read, submission.clone()));
        let slots = request.slots(self.model.config().vocab_size);
        self.next_ticket += 1;
        let pending = Pending { submission, mapping, done, fault_word, slots };
        self.pending.insert(self.next_ticket, pending);
        Ok(Ticket(self.next_ticket))
    }

    fn logit_bytes(&self, block: &OutputBlock) -> u64 {
        4 * (block.rows.len() * self.model.config().vocab_size) as u64
    }

    /// Copies the tokens that the step chooses, then the fault word, after the logits.
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

    fn write_rows(&self, rows: &[StepRow]) {
        let buffer = &self.model.workspace.rows;
        self.gpu.queue().write_buffer(buffer, 0, bytemuck::cast_slice(rows));
    }

    fn write_step(&self, rows: usize, block: Option<&OutputBlock>) {
        let (queue, workspace) = (self.gpu.queue(), &self.model.workspace);
        let step = [rows, block.map_or(0, |block| block.rows.len())].map(|count| count as u32);
        queue.write_buffer(&workspace.step, 0, bytemuck::cast_slice(&step));
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

    /// Drops the persistent kernels after a fault, so that later steps run without them.
    fn drop_persistent(&mut self) -> Error {
        log::warn!("decoding runs without persistent kernels from now on");
        self.model.persistent = None;
        self.trunks.remove(&StepShape::Decode);
        let reason = "workgroups that wait for one another did not run at the same time: \
                      from now on none wait";
        Error::Device(format!("{reason} (--kernels persistent=off from the start)"))
    }

    /// Waits for a step and returns its results.
    ///
    /// Errors: a step that was read before, a failed device, a logit that is not finite.
    pub async fn finish(&mut self, ticket: Ticket) -> Result<Vec<StepResult>> {
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
        if self.readbacks.len() < KEPT_READBACKS {
            self.readbacks.push(buffer);
        }
        if pending.fault_word.is_some_and(|word| words[word] != 0) {
            return Err(self.drop_persistent());
        }
        pending.slots.iter().map(|slot| slot.result(&words)).collect()
    }
}

fn head_size(block: &OutputBlock) -> StepSize {
    StepSize { outputs: block.rows.len(), ..StepSize::default() }
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
