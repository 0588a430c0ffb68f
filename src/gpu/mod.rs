//! The wgpu backend: the same WGSL kernels on Vulkan, Metal, DirectX 12 and WebGPU.

mod backend;
mod device;
pub mod kernels;
mod memory_plan;
mod model;
mod weights;

pub use backend::GpuBackend;
pub use device::{
    adapter::{AdapterFacts, CooperativeMatrix, adapters},
    buffers::GpuBuffer,
    dispatch::{Access, Binding, Dispatch, KernelSource},
    gpu::Gpu,
    grid::{Extent, Grid, StepSize},
    kernel_options::{KERNEL_OPTIONS, KernelOption, KernelOptions},
    pipeline_cache::PipelineStats,
    select::{DeviceOptions, select},
    tuning::{KernelTarget, MatvecShape, Tuning},
    variant::{Coop, Variant},
};
pub use weights::{
    matrix::{GpuMatrix, tile},
    synthetic::SyntheticSource,
};
