//! Device buffers with their sizes, and the sum of these.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes held on a device, at present and at most.
#[derive(Debug, Default)]
pub(in crate::gpu) struct MemoryTally {
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

/// A buffer whose size counts as held while it lives.
#[derive(Debug)]
pub struct GpuBuffer {
    buffer: wgpu::Buffer,
    tally: Arc<MemoryTally>,
}

impl GpuBuffer {
    pub(in crate::gpu) fn new(buffer: wgpu::Buffer, tally: Arc<MemoryTally>) -> Self {
        tally.add(buffer.size());
        GpuBuffer { buffer, tally }
    }
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        self.tally.current.fetch_sub(self.buffer.size(), Ordering::Relaxed);
        // In a browser a buffer waits for the garbage collector, which does not see device memory.
        #[cfg(target_arch = "wasm32")]
        self.buffer.destroy();
    }
}

/// A mapped buffer of `size` bytes for the host to write and kernels to read. The host must write
/// all of it.
///
/// wgpu fills new mapped memory with zeros on one thread. That takes longer than writing the
/// weights on all threads. Hence large buffers are made below wgpu where that was tested.
pub(in crate::gpu) fn mapped_storage(
    device: &wgpu::Device,
    label: &str,
    size: u64,
) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::MAP_WRITE;
    let mut descriptor =
        wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    #[cfg(target_os = "linux")]
    if let Some(buffer) =
        (size >= 1 << 16).then(|| uncleared_storage(device, &descriptor)).flatten()
    {
        buffer.map_async(wgpu::MapMode::Write, .., |_| ());
        // Nothing uses the buffer, so this maps it immediately. If not, writing reports an error.
        let _ = device.poll(wgpu::PollType::Poll);
        return buffer;
    }
    descriptor.mapped_at_creation = true;
    device.create_buffer(&descriptor)
}

/// A buffer that the host maps and kernels use. It is like a buffer that wgpu makes, except that it
/// is not filled with zeros. `None` without Vulkan, or if the driver refuses: then the ordinary
/// call to wgpu reports the error.
#[cfg(target_os = "linux")]
fn uncleared_storage(
    device: &wgpu::Device,
    descriptor: &wgpu::BufferDescriptor<'_>,
) -> Option<wgpu::Buffer> {
    use wgpu::hal::{self, Device, api::Vulkan};
    let usage = wgpu::BufferUses::MAP_WRITE
        | wgpu::BufferUses::STORAGE_READ_ONLY
        | wgpu::BufferUses::STORAGE_READ_WRITE;
    let (label, size, memory_flags) =
        (descriptor.label, descriptor.size, hal::MemoryFlags::empty());
    // SAFETY: the handle is dropped here, and the device lives on in `device`. The buffer belongs
    // to that device, is not empty, and matches the descriptor. Its memory is written before
    // anything reads it. For it can only be used after it was mapped and unmapped, and its mapping
    // is only for writing. The caller must write all of it, as `mapped_storage` demands.
    unsafe {
        let made = device
            .as_hal::<Vulkan>()?
            .create_buffer(&hal::BufferDescriptor { label, size, usage, memory_flags })
            .ok()?;
        Some(device.create_buffer_from_hal::<Vulkan>(made, descriptor))
    }
}

impl std::ops::Deref for GpuBuffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}
