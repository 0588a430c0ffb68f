//! Kernels of a device: their pipelines, and dispatches that are bound to buffers.

use std::{borrow::Cow, collections::HashSet};
#[cfg(not(target_arch = "wasm32"))]
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use web_time::{Duration, Instant};

#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::device::gpu::one_line;
use crate::{
    error::{Error, Result},
    gpu::{
        device::{
            buffers::GpuBuffer,
            gpu::{Gpu, lock},
            grid::{Extent, Grid, StepSize},
        },
        kernels::Cost,
    },
};

/// What browsers want before subgroup operations and naga does not know. Teams are whole subgroups,
/// which browsers cannot see.
const BROWSER_SUBGROUPS: &str = "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n";

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    ReadWrite,
    Uniform,
}

/// A buffer that a kernel takes, as its WGSL declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    pub name: &'static str,
    pub access: Access,
    /// The WGSL file and line of the declaration.
    pub file: &'static str,
    pub line: usize,
}

/// A kernel's complete WGSL, entry point `main`, and its bindings in group 0: binding n is entry n.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelSource {
    pub name: &'static str,
    /// The WGSL file of the kernel itself.
    pub file: &'static str,
    pub wgsl: String,
    pub bindings: Vec<Binding>,
}

impl KernelSource {
    /// Buffers that are given by name, in the order of the bindings.
    ///
    /// Errors: a name that the kernel lacks, a binding that is left out or given twice.
    pub fn in_order<T: Copy>(&self, buffers: &[(&str, T)]) -> Result<Vec<T>> {
        let is_known = |name: &str| self.bindings.iter().any(|binding| binding.name == name);
        if let Some((name, _)) = buffers.iter().find(|(name, _)| !is_known(name)) {
            return Err(Error::Device(format!("{} has no binding {name}", self.file)));
        }
        let buffer = |binding: &Binding| {
            let mut named = buffers.iter().filter(|(name, _)| *name == binding.name);
            match (named.next(), named.next()) {
                (Some((_, buffer)), None) => Ok(*buffer),
                (first, _) => {
                    let fault = if first.is_some() { "bound twice" } else { "left out" };
                    let Binding { name, file, line, .. } = binding;
                    Err(Error::Device(format!("{file}:{line}: binding {name} is {fault}")))
                }
            }
        };
        self.bindings.iter().map(buffer).collect()
    }
}

/// A kernel bound to its buffers, ready to be encoded any number of times.
pub struct Dispatch {
    pub(in crate::gpu) name: &'static str,
    pub(in crate::gpu) cost: Cost,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    grid: Grid,
}

impl Dispatch {
    /// Rows of activations that it takes in a step of this size.
    pub(in crate::gpu) fn rows(&self, step: StepSize) -> usize {
        let by_output =
            |extent: &Extent| matches!(extent, Extent::Outputs | Extent::OutputTiles(_));
        if self.grid.0.iter().any(by_output) || step.rows == 0 { step.outputs } else { step.rows }
    }

    /// Encodes the dispatch for a step of this size.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, step: StepSize) {
        let [x, y, z] = self.grid.0.map(|extent| extent.count(step));
        if x * y * z == 0 {
            return;
        }
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Gpu {
    /// Binds a kernel to buffers by the names of its bindings. Compiles it unless that has been
    /// done.
    ///
    /// Errors: a kernel that the driver refuses, buffers that are not those of its bindings.
    pub fn dispatch(
        &self,
        kernel: &KernelSource,
        buffers: &[(&str, &GpuBuffer)],
        grid: Grid,
    ) -> Result<Dispatch> {
        let buffers = kernel.in_order(buffers)?;
        self.bind(kernel, buffers.into_iter().map(|buffer| &**buffer), grid)
    }

    fn bind<'a>(
        &self,
        kernel: &KernelSource,
        buffers: impl IntoIterator<Item = &'a wgpu::Buffer>,
        grid: Grid,
    ) -> Result<Dispatch> {
        let pipeline = self.pipeline(kernel)?;
        let entries: Vec<_> = (0u32..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bind_group = self.0.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        self.check()?;
        Ok(Dispatch { name: kernel.name, cost: Cost::default(), pipeline, bind_group, grid })
    }

    /// Submits a kernel with no workgroups, bound to the first of these buffers: a driver that
    /// compiles at a kernel's first run does so, and nothing is read or written.
    ///
    /// Errors: a kernel that the driver refuses, or buffers that are too few or too small.
    #[cfg(not(target_arch = "wasm32"))]
    pub(in crate::gpu) fn run_nothing(
        &self,
        kernel: &KernelSource,
        buffers: &[wgpu::Buffer],
    ) -> Result<()> {
        let refusal = self.0.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let grid = Grid([Extent::Fixed(0); 3]);
        let dispatch = self.bind(kernel, buffers.iter().take(kernel.bindings.len()), grid)?;
        let mut encoder = self.0.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&dispatch.pipeline);
        pass.set_bind_group(0, &dispatch.bind_group, &[]);
        pass.dispatch_workgroups(0, 0, 0);
        drop(pass);
        self.queue().submit([encoder.finish()]);
        // Outside browsers it is known at once.
        match pin!(refusal.pop()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(error)) => Err(Error::Device(one_line(&error))),
            _ => Ok(()),
        }
    }

    fn pipeline(&self, kernel: &KernelSource) -> Result<wgpu::ComputePipeline> {
        if let Some(pipeline) = lock(&self.0.pipelines).get(kernel) {
            return Ok(pipeline.clone());
        }
        let begin = Instant::now();
        let pipeline = self.compile(kernel);
        self.keep(kernel, pipeline.clone(), begin.elapsed())?;
        Ok(pipeline)
    }

    /// Keeps a pipeline that took so long to make.
    fn keep(
        &self,
        kernel: &KernelSource,
        pipeline: wgpu::ComputePipeline,
        time: Duration,
    ) -> Result<()> {
        self.check().map_err(|error| Error::Device(format!("kernel {}: {error}", kernel.name)))?;
        let cached = self
            .0
            .pipeline_cache
            .as_ref()
            .is_some_and(|cache| cache.note(kernel, self.variant().checks));
        lock(&self.0.pipeline_stats).add(time, cached);
        lock(&self.0.pipelines).insert(kernel.clone(), pipeline);
        Ok(())
    }

    /// Compiles kernels that are not compiled yet at the same time, each on a thread of its own: a
    /// step takes few, of which some take long.
    ///
    /// Errors: a kernel that the driver refuses.
    pub(in crate::gpu) fn compile_together(&self, kernels: HashSet<KernelSource>) -> Result<()> {
        let begin = Instant::now();
        let kernels: Vec<_> = kernels
            .into_iter()
            .filter(|kernel| !lock(&self.0.pipelines).contains_key(kernel))
            .collect();
        let pipelines = self.compile_all(&kernels);
        // What they took together counts once.
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

    /// A page's device belongs to one thread.
    #[cfg(target_arch = "wasm32")]
    fn compile_all(&self, kernels: &[KernelSource]) -> Vec<wgpu::ComputePipeline> {
        kernels.iter().map(|kernel| self.compile(kernel)).collect()
    }

    fn compile(&self, kernel: &KernelSource) -> wgpu::ComputePipeline {
        let device = &self.0.device;
        let wgsl = match cfg!(target_arch = "wasm32")
            && (kernel.wgsl.contains("subgroup_invocation_id")
                || kernel.wgsl.contains("subgroupAdd("))
        {
            true => Cow::Owned(format!("{BROWSER_SUBGROUPS}{}", kernel.wgsl)),
            false => Cow::Borrowed(kernel.wgsl.as_str()),
        };
        let source = wgpu::ShaderSource::Wgsl(wgsl);
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source };
        let module = match self.variant().checks {
            true => device.create_shader_module(descriptor),
            // SAFETY: the kernels are this crate's own; their loops end and their indexes stay
            // inside the buffers, which the tests verify by running every kernel with checks on and
            // off.
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
            cache: self.0.pipeline_cache.as_ref().map(|cache| &cache.cache),
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

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "shaders/linear/copy.wgsl";

    fn source() -> KernelSource {
        let binding = |(line, name)| Binding { name, access: Access::Read, file: FILE, line };
        KernelSource {
            name: "copy",
            file: FILE,
            wgsl: String::new(),
            bindings: [(4, "x"), (5, "y")].map(binding).into(),
        }
    }

    #[test]
    fn buffers_come_in_the_order_of_the_bindings() {
        assert_eq!(source().in_order(&[("y", 2), ("x", 1)]).unwrap(), [1, 2]);
    }

    #[test]
    fn bindings_that_do_not_fit_are_told_by_file_and_line() {
        for (buffers, expected) in [
            (vec![("x", 1), ("y", 2), ("z", 3)], "shaders/linear/copy.wgsl has no binding z"),
            (vec![("x", 1)], "shaders/linear/copy.wgsl:5: binding y is left out"),
            (
                vec![("x", 1), ("y", 2), ("x", 3)],
                "shaders/linear/copy.wgsl:4: binding x is bound twice",
            ),
        ] {
            let error = source().in_order(&buffers).unwrap_err().to_string();
            assert_eq!(error, format!("device: {expected}"));
        }
    }
}
