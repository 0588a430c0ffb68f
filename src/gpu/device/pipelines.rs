//! Compute pipelines of kernels, each compiled once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use web_time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gpu::device::faults::{Faults, lock};
use crate::gpu::device::pipeline_cache::{PipelineCache, PipelineStats};
use crate::gpu::device::source::{Access, KernelSource};

/// Browsers want this before subgroup operations, but naga does not know it. Whole subgroups run
/// the subgroup operations, which browsers cannot verify.
const BROWSER_SUBGROUPS: &str = "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n";

/// The pipelines of a device.
pub(in crate::gpu) struct Pipelines {
    device: wgpu::Device,
    faults: Faults,
    /// Bounds checks and loop bounding are compiled in.
    checks: bool,
    made: Mutex<HashMap<KernelSource, wgpu::ComputePipeline>>,
    stats: Mutex<PipelineStats>,
    /// The cache of earlier runs.
    cache: Option<PipelineCache>,
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        self.save();
    }
}

impl Pipelines {
    pub fn new(
        device: wgpu::Device,
        faults: Faults,
        checks: bool,
        cache: Option<PipelineCache>,
    ) -> Self {
        let (made, stats) = (Mutex::default(), Mutex::default());
        Pipelines { device, faults, checks, made, stats, cache }
    }

    /// Frees compiled kernels.
    pub fn forget(&self) {
        lock(&self.made).clear();
    }

    pub fn stats(&self) -> PipelineStats {
        *lock(&self.stats)
    }

    /// Keeps pipelines for the next start, unless the device has reported an error.
    pub fn save(&self) {
        if let Some(cache) = self.cache.as_ref().filter(|_| self.faults.check().is_ok()) {
            cache.save();
        }
    }

    /// The pipeline of a kernel, compiled if necessary.
    ///
    /// Errors: a kernel that the driver refuses.
    pub fn get(&self, kernel: &KernelSource) -> Result<wgpu::ComputePipeline> {
        if let Some(pipeline) = lock(&self.made).get(kernel) {
            return Ok(pipeline.clone());
        }
        let begin = Instant::now();
        let pipeline = self.compile(kernel);
        self.keep(kernel, pipeline.clone(), begin.elapsed())?;
        Ok(pipeline)
    }

    /// Keeps a pipeline and adds the time that it took to make.
    fn keep(
        &self,
        kernel: &KernelSource,
        pipeline: wgpu::ComputePipeline,
        time: Duration,
    ) -> Result<()> {
        let refused = |error| Error::Device(format!("kernel {}: {error}", kernel.name));
        self.faults.check().map_err(refused)?;
        let cached = self.cache.as_ref().is_some_and(|cache| cache.note(kernel, self.checks));
        lock(&self.stats).add(time, cached);
        lock(&self.made).insert(kernel.clone(), pipeline);
        Ok(())
    }

    /// Compiles missing kernels in parallel, each on a thread of its own. A step has few kernels,
    /// and some take long to compile.
    ///
    /// Errors: a kernel that the driver refuses.
    pub fn compile_together(&self, kernels: HashSet<KernelSource>) -> Result<()> {
        let begin = Instant::now();
        let kernels: Vec<_> =
            kernels.into_iter().filter(|kernel| !lock(&self.made).contains_key(kernel)).collect();
        let pipelines = self.compile_all(&kernels);
        // The time of the whole group counts once.
        let time = begin.elapsed() / kernels.len().max(1) as u32;
        kernels
            .iter()
            .zip(pipelines)
            .try_for_each(|(kernel, pipeline)| self.keep(kernel, pipeline, time))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn compile_all(&self, kernels: &[KernelSource]) -> Vec<wgpu::ComputePipeline> {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                kernels.iter().map(|kernel| scope.spawn(|| self.compile(kernel))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a compiler that does not panic"))
                .collect()
        })
    }

    /// In a browser, a device belongs to one thread.
    #[cfg(target_arch = "wasm32")]
    fn compile_all(&self, kernels: &[KernelSource]) -> Vec<wgpu::ComputePipeline> {
        kernels.iter().map(|kernel| self.compile(kernel)).collect()
    }

    fn compile(&self, kernel: &KernelSource) -> wgpu::ComputePipeline {
        let device = &self.device;
        let wgsl = match cfg!(target_arch = "wasm32")
            && (kernel.wgsl.contains("subgroup_invocation_id")
                || kernel.wgsl.contains("subgroupAdd("))
        {
            true => Cow::Owned(format!("{BROWSER_SUBGROUPS}{}", kernel.wgsl)),
            false => Cow::Borrowed(kernel.wgsl.as_str()),
        };
        let source = wgpu::ShaderSource::Wgsl(wgsl);
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source };
        let module = match self.checks {
            true => device.create_shader_module(descriptor),
            // SAFETY: the kernels are this crate's own. Their loops end, and their indexes stay
            // inside the buffers. The tests verify that by running every kernel with checks and
            // without.
            false => unsafe {
                device.create_shader_module_trusted(
                    descriptor,
                    wgpu::ShaderRuntimeChecks::unchecked(),
                )
            },
        };
        let entries: Vec<_> = (0u32..)
            .zip(&kernel.bindings)
            .map(|(i, binding)| layout_entry(i, binding.access))
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.name),
            entries: &entries,
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: self.cache.as_ref().map(|cache| &cache.cache),
        })
    }
}

fn layout_entry(binding: u32, access: Access) -> wgpu::BindGroupLayoutEntry {
    let ty = match access {
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
        Access::Uniform => wgpu::BufferBindingType::Uniform,
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
