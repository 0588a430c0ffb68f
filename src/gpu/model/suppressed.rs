//! Suppressed tokens, which steps must not choose.

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, dispatch::Dispatch, gpu::Gpu};
use crate::gpu::kernels::{Kernel, Suppress};

/// A list of suppressed tokens, and the dispatch that sets their logits to −∞.
#[derive(Default)]
pub(in crate::gpu) struct Suppressed {
    ids: Vec<u32>,
    dispatch: Option<Dispatch>,
}

impl Suppressed {
    /// Suppresses `ids`, all below `vocab`, in the logits `[outputs, vocab]` of later steps.
    ///
    /// Errors: a kernel that the driver refuses, no memory.
    pub fn set(
        &mut self,
        gpu: &Gpu,
        logits: &GpuBuffer,
        vocab: usize,
        ids: Vec<u32>,
    ) -> Result<()> {
        if ids == self.ids {
            return Ok(());
        }
        self.dispatch = match ids.is_empty() {
            true => None,
            false => {
                let kernel = Suppress { n: vocab, count: ids.len() };
                let buffer = gpu.buffer_of("suppressed tokens", &ids)?;
                let source = kernel.source(gpu.target());
                let buffers = [("logits", logits), ("ids", &buffer)];
                Some(gpu.dispatch(&source, &buffers, kernel.grid(gpu.target()))?)
            }
        };
        self.ids = ids;
        Ok(())
    }

    /// The dispatch between logits and choice; `None` if no token is suppressed.
    pub fn dispatch(&self) -> Option<&Dispatch> {
        self.dispatch.as_ref()
    }
}
