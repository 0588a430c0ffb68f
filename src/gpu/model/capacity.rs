//! How many sequences a device has room for.

use std::cell::Cell;

use crate::error::{Error, Result};
use crate::gpu::device::gpu::{Gpu, buffer_size};
use crate::gpu::model::layers::LayerCache;
use crate::gpu::model::step::{logit_rows, max_step_tokens};
use crate::gpu::model::workspace::{Allocator, Workspace};
use crate::model::config::ModelConfig;
use crate::model::weights::LoadOptions;

/// Sums the sizes of buffers, and keeps the largest.
#[derive(Default)]
pub(in crate::gpu) struct SizeSum {
    bytes: Cell<u64>,
    largest: Cell<u64>,
}

impl SizeSum {
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub fn largest(&self) -> u64 {
        self.largest.get()
    }
}

impl Allocator for SizeSum {
    type Buffer = ();

    fn buffer(&self, _: &str, bytes: u64) -> Result<()> {
        self.bytes.set(self.bytes.get().saturating_add(buffer_size(bytes)));
        self.largest.set(self.largest.get().max(bytes));
        Ok(())
    }

    fn uniform(&self, label: &str, _: [u32; 4]) -> Result<()> {
        self.buffer(label, 16)
    }
}

/// Errors if the sequences need a larger buffer than the device allows. The error has the number of
/// sequences that fit.
pub(in crate::gpu) fn check_sequences(
    gpu: &Gpu,
    config: &ModelConfig,
    options: &LoadOptions,
) -> Result<()> {
    let limit = buffer_limit(gpu);
    let is_possible = |max_sequences: usize| -> Result<bool> {
        let options = LoadOptions { max_sequences, ..*options };
        let rows = max_step_tokens(gpu, &options);
        let of_cache = |layer| LayerCache::size(layer, &options, rows).1;
        let caches = config.cached_layers().iter().map(of_cache).max().unwrap_or(0);
        let (workspace, logit_rows) = (SizeSum::default(), logit_rows(config, &options, rows));
        Workspace::new(&workspace, gpu.target(), config, &options, rows, logit_rows)?;
        Ok(caches.max(workspace.largest()) <= limit)
    };
    let (count, positions) = (options.max_sequences, options.context_length);
    if count == 1 || is_possible(count)? {
        return Ok(());
    }
    let (mut possible, mut beyond) = (0, count);
    while beyond - possible > 1 {
        let middle = possible + (beyond - possible) / 2;
        match is_possible(middle)? {
            true => possible = middle,
            false => beyond = middle,
        }
    }
    Err(Error::Device(format!(
        "{count} sequences of {positions} positions need a buffer of more than {limit} bytes, \
         which the adapter does not allow; sequences that fit: {possible}"
    )))
}

/// Bytes of the largest buffer that kernels can use whole.
pub(in crate::gpu) fn buffer_limit(gpu: &Gpu) -> u64 {
    gpu.facts().max_binding_bytes.min(gpu.facts().max_buffer_bytes)
}
