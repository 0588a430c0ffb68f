//! Compiles kernels while weights are read, in the order in which an answer needs them. Software
//! drivers compile a kernel at its first run. So each kernel runs once without workgroups.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu, source::KernelSource};
use crate::gpu::model::forward::Model;
use crate::gpu::model::layers::LayerCache;
use crate::gpu::model::step::{StepShape, logit_rows, max_step_tokens};
use crate::gpu::model::workspace::{Allocator, Workspace};
use crate::gpu::weights::fused::FusedAllocator;
use crate::gpu::weights::matrix::{GpuMatrix, MatrixMemory};
use crate::model::matrix_reader::MatrixReader;
use crate::model::source::TensorSource;
use crate::model::weights::{self, LoadOptions, ModelWeights, PlannedTensor, WeightStore};

/// Bytes that are enough for every binding.
pub(in crate::gpu) const BINDING_BYTES: u64 = 1 << 10;
const POLL: Duration = Duration::from_millis(2);

/// A thread that compiles. It ends after the current kernel when this is dropped.
pub(in crate::gpu) struct WarmUp {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WarmUp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The model does not depend on the thread's result.
            let _ = thread.join();
        }
    }
}

impl WarmUp {
    /// Starts with the kernels of prefill, then those of decode. `None` on hardware, whose drivers
    /// compile when a pipeline is made.
    ///
    /// Errors: a checkpoint that cannot be loaded.
    pub async fn start(
        gpu: &Gpu,
        source: &dyn TensorSource,
        options: &LoadOptions,
    ) -> Result<Option<WarmUp>> {
        if !gpu.facts().compiles_at_first_run() {
            return Ok(None);
        }
        let model = Shapes::new(gpu, &weights::planned_tensors(source, options.quantize)?)
            .model(source, options)
            .await?;
        let head = StepShape::Decode;
        let sources = |trunk| model.sources(trunk, head, None);
        let groups = [sources(StepShape::Prefill)?, sources(StepShape::Decode)?];
        drop(model);
        let (gpu, stop) = (gpu.clone(), Arc::new(AtomicBool::new(false)));
        let asked_to_stop = stop.clone();
        let thread = thread::spawn(move || run(&gpu, groups, &asked_to_stop));
        Ok(Some(WarmUp { stop, thread: Some(thread) }))
    }
}

impl WarmUp {
    /// Compiles kernels one after another, so that other work has the other cores. `None` if there
    /// are none. A kernel that fails here fails again in a step, which returns the error.
    pub fn compile_later(gpu: &Gpu, kernels: HashSet<KernelSource>) -> Option<WarmUp> {
        if kernels.is_empty() {
            return None;
        }
        let (gpu, stop) = (gpu.clone(), Arc::new(AtomicBool::new(false)));
        let asked_to_stop = stop.clone();
        let thread = thread::spawn(move || {
            for kernel in kernels {
                if asked_to_stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = gpu.compile_together(HashSet::from([kernel])) {
                    log::debug!("a kernel is not compiled ahead: {error}");
                }
            }
            gpu.keep_pipelines();
        });
        Some(WarmUp { stop, thread: Some(thread) })
    }

    /// Waits until all is compiled.
    #[cfg(test)]
    pub fn finish(mut self) {
        self.thread.take().expect("a thread").join().expect("no panic");
    }
}

/// Runs groups of kernels until it should stop. A kernel that fails here fails again in a step,
/// which returns the error.
fn run(gpu: &Gpu, groups: [HashSet<KernelSource>; 2], stop: &AtomicBool) {
    let most = groups.iter().flatten().map(|kernel| kernel.bindings.len()).max().unwrap_or(0);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM;
    let descriptor = wgpu::BufferDescriptor {
        label: Some("warm-up"),
        size: BINDING_BYTES,
        usage,
        mapped_at_creation: false,
    };
    let buffers: Vec<wgpu::Buffer> =
        (0..most).map(|_| gpu.device().create_buffer(&descriptor)).collect();
    // All pipelines are made even if it stops early, so that the cache on disk is the same each
    // time.
    if !groups.iter().all(|group| gpu.compile_together(group.clone()).is_ok()) {
        return;
    }
    for group in groups {
        for kernel in group {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = gpu.run_nothing(&kernel, &buffers) {
                log::debug!("kernel {} is not compiled ahead: {error}", kernel.name);
                continue;
            }
            let mut done = gpu.done();
            // A blocking wait in wgpu would keep other threads from submitting.
            while let Ok(None) = done.try_recv() {
                if gpu.device().poll(wgpu::PollType::Poll).is_err() {
                    return;
                }
                thread::sleep(POLL);
            }
        }
    }
}

/// Makes matrices that have shapes but no memory.
pub(in crate::gpu) struct Shapes {
    gpu: Gpu,
    fused: FusedAllocator,
}

impl Shapes {
    pub fn new(gpu: &Gpu, tensors: &[PlannedTensor]) -> Self {
        Shapes {
            gpu: gpu.clone(),
            fused: FusedAllocator::new(gpu, tensors, MatrixMemory::ShapeOnly),
        }
    }

    /// A model that only serves to name its kernels.
    pub async fn model(
        mut self,
        source: &dyn TensorSource,
        options: &LoadOptions,
    ) -> Result<Model> {
        let gpu = self.gpu.clone();
        let (config, rows) = (source.config(), max_step_tokens(&gpu, options));
        let weights = ModelWeights::load(source, options.quantize, &mut self, &mut |_| ()).await?;
        let buffers = TinyBuffers(&gpu);
        let cache = |layer| {
            let (capacity, _) = LayerCache::size(layer, options, rows);
            Ok(LayerCache {
                k: buffers.buffer("keys", 0)?,
                v: buffers.buffer("values", 0)?,
                capacity,
            })
        };
        let caches = config.cached_layers().iter().map(cache).collect::<Result<_>>()?;
        let logit_rows = logit_rows(config, options, rows);
        let workspace = Workspace::new(&buffers, gpu.target(), config, options, rows, logit_rows)?;
        Model::new(gpu.clone(), config.clone(), weights, caches, workspace, options)
    }
}

impl WeightStore for Shapes {
    type Matrix = GpuMatrix;
    type Vector = GpuBuffer;

    async fn matrix(&mut self, reader: MatrixReader<'_>) -> Result<GpuMatrix> {
        let (matrix, first) = self.fused.begin(&self.gpu, &reader)?;
        Ok(self.fused.end(matrix, first + reader.rows))
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<GpuBuffer> {
        self.gpu.buffer_of(name, bytemuck::cast_slice(&values))
    }
}

/// Allocates a few bytes for each buffer.
struct TinyBuffers<'a>(&'a Gpu);

impl Allocator for TinyBuffers<'_> {
    type Buffer = GpuBuffer;

    fn buffer(&self, label: &str, _: u64) -> Result<GpuBuffer> {
        self.0.buffer(label, 16)
    }

    fn uniform(&self, label: &str, words: [u32; 4]) -> Result<GpuBuffer> {
        self.0.uniform(label, words)
    }
}
