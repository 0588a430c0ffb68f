//! What makes a model's buffers.

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu};

/// Makes buffers, or only sums their sizes.
pub(in crate::gpu) trait Allocator {
    type Buffer;
    /// Errors: the buffer is larger than the device allows, or out of memory.
    fn buffer(&self, label: &str, bytes: u64) -> Result<Self::Buffer>;
    fn uniform(&self, label: &str, words: [u32; 4]) -> Result<Self::Buffer>;
}

impl Allocator for Gpu {
    type Buffer = GpuBuffer;

    fn buffer(&self, label: &str, bytes: u64) -> Result<GpuBuffer> {
        Gpu::buffer(self, label, bytes)
    }

    fn uniform(&self, label: &str, words: [u32; 4]) -> Result<GpuBuffer> {
        Gpu::uniform(self, label, words)
    }
}
