//! The wgpu backend: the same WGSL kernels on Vulkan, Metal, DirectX 12 and WebGPU.

mod backend;
mod bandwidth;
mod device;
pub mod kernels;
mod memory_plan;
mod model;
mod weights;

pub use backend::GpuBackend;
pub use device::adapter::{AdapterFacts, Coop, CooperativeMatrix, adapters};
pub use device::buffers::GpuBuffer;
pub use device::dispatch::Dispatch;
pub use device::gpu::Gpu;
pub use device::grid::{Extent, Grid, StepSize};
pub use device::kernel_options::{KERNEL_OPTIONS, KernelOption, KernelOptions};
pub use device::pipeline_cache::PipelineStats;
pub use device::select::{DeviceOptions, select};
pub use device::source::{Access, Binding, KernelSource};
pub use device::tuning::{CoopRows, CoopRowsShape, KernelTarget, MatvecShape, Tuning};
pub use device::variant::Variant;
pub use weights::matrix::{GpuMatrix, tile};
