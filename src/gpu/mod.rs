//! The wgpu backend: the same WGSL kernels on Vulkan, Metal, DirectX 12 and WebGPU.

mod backend;
mod bandwidth;
mod device;
pub mod kernels;
mod memory_plan;
mod model;
mod weights;

pub use backend::GpuBackend;
pub use device::{
    adapter::{AdapterFacts, Coop, CooperativeMatrix, adapters},
    buffers::GpuBuffer,
    dispatch::Dispatch,
    gpu::Gpu,
    grid::{Extent, Grid, StepSize},
    kernel_options::{KERNEL_OPTIONS, KernelOption, KernelOptions},
    pipeline_cache::PipelineStats,
    select::{DeviceOptions, select},
    source::{Access, Binding, KernelSource},
    tuning::{KernelTarget, MatvecShape, Tuning},
    variant::Variant,
};
pub use weights::matrix::{GpuMatrix, tile};
