//! Device buffers that know how much they hold, and the tally of them all.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes held on a device, now and at most.
#[derive(Debug, Default)]
pub(super) struct MemoryTally {
    current: AtomicU64,
    peak: AtomicU64,
}

impl MemoryTally {
    fn add(&self, bytes: u64) {
        let now = self.current.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    /// Most bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// A buffer that counts in its device's tally while it lives.
#[derive(Debug)]
pub struct GpuBuffer {
    buffer: wgpu::Buffer,
    tally: Arc<MemoryTally>,
}

impl GpuBuffer {
    pub(super) fn new(buffer: wgpu::Buffer, tally: Arc<MemoryTally>) -> Self {
        tally.add(buffer.size());
        GpuBuffer { buffer, tally }
    }
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        self.tally.current.fetch_sub(self.buffer.size(), Ordering::Relaxed);
        // There it would wait for the garbage collector, which does not see the device's memory.
        #[cfg(target_arch = "wasm32")]
        self.buffer.destroy();
    }
}

impl std::ops::Deref for GpuBuffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}
