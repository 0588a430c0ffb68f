//! Kernels that are bound to buffers.

#[cfg(not(target_arch = "wasm32"))]
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use crate::error::Result;
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::device::gpu::Gpu;
use crate::gpu::device::grid::{Extent, Grid, StepSize};
use crate::gpu::device::source::{Cost, KernelSource};
#[cfg(not(target_arch = "wasm32"))]
use crate::{error::Error, gpu::device::faults::one_line};

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
    /// Binds a kernel to buffers by the names of its bindings. Compiles the kernel if necessary.
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
        let pipeline = self.0.pipelines.get(kernel)?;
        let entries: Vec<_> = (0u32..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bind_group = self.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        self.check()?;
        Ok(Dispatch { name: kernel.name, cost: Cost::default(), pipeline, bind_group, grid })
    }

    /// Submits a kernel with no workgroups, bound to the first of these buffers. Nothing is read or
    /// written, but a driver that compiles at a kernel's first run does so.
    ///
    /// Errors: a kernel that the driver refuses, or buffers that are too few or too small.
    #[cfg(not(target_arch = "wasm32"))]
    pub(in crate::gpu) fn run_nothing(
        &self,
        kernel: &KernelSource,
        buffers: &[wgpu::Buffer],
    ) -> Result<()> {
        let refusal = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let grid = Grid([Extent::Fixed(0); 3]);
        let dispatch = self.bind(kernel, buffers.iter().take(kernel.bindings.len()), grid)?;
        let mut encoder = self.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&dispatch.pipeline);
        pass.set_bind_group(0, &dispatch.bind_group, &[]);
        pass.dispatch_workgroups(0, 0, 0);
        drop(pass);
        self.queue().submit([encoder.finish()]);
        // Outside browsers the result is available at once.
        match pin!(refusal.pop()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(error)) => Err(Error::Device(one_line(&error))),
            _ => Ok(()),
        }
    }
}
