//! An open device and its buffers. Errors become [`Error::Device`].

use std::{collections::HashSet, sync::Arc};

use crate::error::{Error, Result};
use crate::gpu::device::adapter::{self, AdapterFacts};
use crate::gpu::device::buffers::{GpuBuffer, MemoryTally, mapped_storage};
use crate::gpu::device::faults::{Faults, one_line};
use crate::gpu::device::pipeline_cache::{PipelineCache, PipelineStats};
use crate::gpu::device::pipelines::Pipelines;
use crate::gpu::device::select::{self, DeviceOptions};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::{KernelTarget, Tuning};
use crate::gpu::device::variant::Variant;

/// Completes when submitted work is done.
pub(in crate::gpu) type Done = futures_channel::oneshot::Receiver<()>;

pub(in crate::gpu) struct Inner {
    facts: AdapterFacts,
    target: KernelTarget,
    /// Whether the user asked for [`Tuning::persistent`].
    requires_persistent: bool,
    device: wgpu::Device,
    queue: wgpu::Queue,
    tally: Arc<MemoryTally>,
    faults: Faults,
    pub(in crate::gpu) pipelines: Pipelines,
}

/// An open device with its queue, kernel target and pipelines. Cheap to clone.
#[derive(Clone)]
pub struct Gpu(pub(in crate::gpu) Arc<Inner>);

impl Gpu {
    /// [`Gpu::open`] with a measurement of whether the device has a large cache.
    pub(in crate::gpu) async fn open_with(
        options: &DeviceOptions,
        has_large_cache: impl Fn(&Gpu) -> Result<bool>,
    ) -> Result<Gpu> {
        let instance = adapter::instance();
        let (mut facts, adapter) = select::find(&instance, options.adapter.as_deref()).await?;
        if let Some([smallest, largest]) = options.browser_subgroups {
            facts.subgroups = true;
            (facts.subgroup_min_size, facts.subgroup_max_size) = (smallest, largest);
        }
        let kernels = options.kernels.resolve(&facts)?;
        let mut target = KernelTarget::new(&facts, &kernels);
        let mut wanted = wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER
            | wgpu::Features::SHADER_F16
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::PIPELINE_CACHE
            | wgpu::Features::MEMORY_DECORATION_COHERENT;
        if target.tuning.inplace {
            wanted |= wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if target.variant.coop.is_some() {
            wanted |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: wgpu does not check cooperative loads and stores. The shaders are this
            // crate's own, and the tests compare them with their twins.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gemma4-wgpu"),
            required_features: adapter.features() & wanted,
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            experimental_features,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::Device(one_line(&error)))?;
        let faults = Faults::of(&device);
        let inner = |target: KernelTarget, cache| Inner {
            facts: facts.clone(),
            target,
            requires_persistent: options.kernels.persistent == Some(true),
            device: device.clone(),
            queue: queue.clone(),
            tally: Arc::default(),
            faults: faults.clone(),
            pipelines: Pipelines::new(device.clone(), faults.clone(), target.variant.checks, cache),
        };
        // The measurement takes time, so only devices where prefetching was seen to help make it.
        if kernels.prefetch.is_none() {
            let probe = Gpu(Arc::new(inner(target, None)));
            target.tuning.prefetch = has_large_cache(&probe)?;
        }
        log::info!("{facts}, {target:?}");
        let pipeline_cache = match &options.pipeline_cache {
            Some(directory) => PipelineCache::open(&device, &adapter.get_info(), directory).await,
            None => None,
        };
        Ok(Gpu(Arc::new(inner(target, pipeline_cache))))
    }

    /// Frees compiled kernels, for which software drivers keep much memory. Kernels that run again
    /// are compiled again.
    pub fn forget_pipelines(&self) {
        self.0.pipelines.forget();
    }

    pub fn facts(&self) -> &AdapterFacts {
        &self.0.facts
    }

    /// The target that kernels are made for here.
    pub fn target(&self) -> &KernelTarget {
        &self.0.target
    }

    /// The kernel features that can run here.
    pub fn variant(&self) -> &Variant {
        &self.0.target.variant
    }

    /// The choices that are fastest here.
    pub fn tuning(&self) -> &Tuning {
        &self.0.target.tuning
    }

    /// Whether the user asked for the persistent kernel. Then it is an error if it cannot run.
    pub(in crate::gpu) fn requires_persistent(&self) -> bool {
        self.0.requires_persistent
    }

    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// Most bytes held in buffers at once so far.
    pub fn peak_bytes(&self) -> u64 {
        self.0.tally.peak()
    }

    /// Pipelines made so far.
    pub fn pipeline_stats(&self) -> PipelineStats {
        self.0.pipelines.stats()
    }

    /// Logs the number of pipelines, and keeps them for the next start.
    pub(in crate::gpu) fn keep_pipelines(&self) {
        let PipelineStats { made, cached, time } = self.pipeline_stats();
        log::info!("{made} pipelines in {time:.2?}, {cached} of them compiled before");
        self.0.pipelines.save();
    }

    /// The first error that the device reported since it was opened, if any.
    pub fn check(&self) -> Result<()> {
        self.0.faults.check()
    }

    /// Compiles kernels in parallel, so that their first dispatches do not wait.
    ///
    /// Errors: a kernel that the driver refuses.
    pub(in crate::gpu) fn compile_together(&self, kernels: HashSet<KernelSource>) -> Result<()> {
        self.0.pipelines.compile_together(kernels)
    }

    /// A zeroed storage buffer of at least `bytes`, which may be copied from and to.
    ///
    /// Errors: larger than one binding or buffer may be, or out of memory.
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<GpuBuffer> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        self.allocate(label, bytes, usage, self.0.facts.max_binding_bytes)
    }

    /// A mapped storage buffer that the host writes in place before its use, for [`Tuning`]'s
    /// `inplace`. The host must write all of the `bytes`.
    pub(in crate::gpu) fn mapped_buffer(&self, label: &str, bytes: u64) -> Result<GpuBuffer> {
        let size = self.size(label, bytes, self.0.facts.max_binding_bytes)?;
        let buffer = mapped_storage(&self.0.device, label, size);
        self.check()?;
        // wgpu maps from multiples of 8.
        let beyond = bytes / 8 * 8;
        if beyond < size {
            let view = buffer.get_mapped_range_mut(beyond..);
            view.map_err(|error| Error::Device(one_line(&error)))?.slice(..).fill(0);
        }
        Ok(GpuBuffer::new(buffer, self.0.tally.clone()))
    }

    /// A uniform buffer holding `words`.
    pub fn uniform(&self, label: &str, words: [u32; 4]) -> Result<GpuBuffer> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.allocate(label, 16, usage, 16)?;
        self.0.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
        Ok(buffer)
    }

    /// A storage buffer holding `words`.
    pub fn buffer_of(&self, label: &str, words: &[u32]) -> Result<GpuBuffer> {
        let buffer = self.buffer(label, 4 * words.len() as u64)?;
        self.0.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        Ok(buffer)
    }

    /// A buffer that the host reads.
    pub(in crate::gpu) fn readback_buffer(&self, bytes: u64) -> Result<GpuBuffer> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.allocate("readback", bytes, usage, self.0.facts.max_buffer_bytes)
    }

    /// A buffer that the host writes, mapped.
    pub(in crate::gpu) fn upload_buffer(&self, bytes: u64) -> Result<GpuBuffer> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        self.allocate("upload", bytes, usage, self.0.facts.max_buffer_bytes)
    }

    fn allocate(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        limit: u64,
    ) -> Result<GpuBuffer> {
        let size = self.size(label, bytes, limit)?;
        let mapped_at_creation = usage.contains(wgpu::BufferUsages::MAP_WRITE);
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation };
        let buffer = self.0.device.create_buffer(&descriptor);
        self.check()?;
        Ok(GpuBuffer::new(buffer, self.0.tally.clone()))
    }

    /// The size of a buffer for `bytes`. Errors if it exceeds `limit`.
    fn size(&self, label: &str, bytes: u64, limit: u64) -> Result<u64> {
        let limit = limit.min(self.0.facts.max_buffer_bytes);
        if bytes > limit {
            return Err(Error::Device(format!(
                "{label} needs {bytes} bytes in one buffer; the adapter allows {limit}"
            )));
        }
        Ok(buffer_size(bytes))
    }

    /// Completes when the device has finished all submitted work, if something polls it (a browser
    /// does).
    pub(in crate::gpu) fn done(&self) -> Done {
        let (done, waiting) = futures_channel::oneshot::channel();
        self.0.queue.on_submitted_work_done(move || {
            let _ = done.send(());
        });
        waiting
    }

    /// Waits until the device has finished all submitted work, in browsers too.
    pub async fn finished(&self) -> Result<()> {
        let done = self.done();
        self.wait()?;
        // Dropped with a lost device, which the check reports.
        let _ = done.await;
        self.check()
    }

    /// Waits until the device has finished all submitted work (in a browser: returns at once).
    pub fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    fn poll(&self, how: wgpu::PollType) -> Result<()> {
        let polled = self.0.device.poll(how);
        if polled.is_err() {
            // The next poll reports a lost device, which explains more.
            let _ = self.0.device.poll(wgpu::PollType::Poll);
        }
        self.check()?;
        polled.map(|_| ()).map_err(|error| Error::Device(one_line(&error)))
    }

    /// Starts to map a buffer that the host reads or writes. The device must finish `submission`
    /// first.
    pub(in crate::gpu) fn map(
        &self,
        buffer: GpuBuffer,
        mode: wgpu::MapMode,
        submission: wgpu::SubmissionIndex,
    ) -> Mapping {
        let (done, mapped) = futures_channel::oneshot::channel();
        buffer.map_async(mode, .., move |result| {
            let _ = done.send(result);
        });
        Mapping { buffer, mapped, submission }
    }

    /// Waits until the device has finished a submission (in a browser: returns at once).
    pub(in crate::gpu) fn wait_for(&self, submission: &wgpu::SubmissionIndex) -> Result<()> {
        self.poll(wgpu::PollType::Wait {
            submission_index: Some(submission.clone()),
            timeout: None,
        })
    }

    /// Waits for a mapping.
    pub(in crate::gpu) async fn mapped(&self, mapping: Mapping) -> Result<GpuBuffer> {
        let Mapping { buffer, mapped, submission } = mapping;
        self.wait_for(&submission)?;
        let mapped = mapped.await.map_err(|_| "lost while mapping a buffer".to_owned());
        if let Err(reason) = mapped.and_then(|mapped| mapped.map_err(|error| one_line(&error))) {
            // An error that the device reported by itself says more.
            return self.check().and(Err(Error::Device(reason)));
        }
        self.check().map(|()| buffer)
    }

    /// Waits for a mapping, copies the buffer to the host, and returns it unmapped.
    pub(in crate::gpu) async fn read<T: bytemuck::Pod>(
        &self,
        mapping: Mapping,
    ) -> Result<(Vec<T>, GpuBuffer)> {
        let buffer = self.mapped(mapping).await?;
        let view = buffer.get_mapped_range(..).map_err(|error| Error::Device(one_line(&error)))?;
        let values = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        buffer.unmap();
        Ok((values, buffer))
    }

    /// Copies a whole storage buffer to the host; for tests and small results.
    pub async fn download<T: bytemuck::Pod>(&self, buffer: &GpuBuffer) -> Result<Vec<T>> {
        let readback = self.readback_buffer(buffer.size())?;
        let mut encoder = self.0.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &readback, 0, buffer.size());
        let submission = self.0.queue.submit([encoder.finish()]);
        Ok(self.read(self.map(readback, wgpu::MapMode::Read, submission)).await?.0)
    }
}

/// A buffer that is being mapped for the host.
pub(in crate::gpu) struct Mapping {
    buffer: GpuBuffer,
    mapped: futures_channel::oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    submission: wgpu::SubmissionIndex,
}

/// Size of a buffer for `bytes`.
pub(in crate::gpu) fn buffer_size(bytes: u64) -> u64 {
    bytes.max(16).checked_next_multiple_of(16).unwrap_or(bytes)
}
