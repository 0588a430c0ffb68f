//! The wgpu backend: the same WGSL kernels on Vulkan, Metal, DirectX 12 and WebGPU.

mod adapter;
mod backend;
mod bandwidth;
mod buffers;
mod chained;
mod device;
mod dispatch;
mod forward;
mod grid;
mod hqq;
#[cfg(not(target_arch = "wasm32"))]
mod in_place;
mod joints;
pub mod kernels;
mod layers;
mod matrix;
mod memory;
mod pipeline_cache;
mod plan;
mod profile;
mod scratch;
mod store;
mod suppressed;
mod synthetic;
mod unroll;
mod upload;
mod wanted;
mod wgsl;

pub use adapter::{AdapterFacts, Coop, CooperativeMatrix, DeviceOptions, KernelOptions, Variant, adapters};
pub use backend::GpuBackend;
pub use buffers::GpuBuffer;
pub use device::Gpu;
pub use dispatch::{Binding, Dispatch, KernelSource};
pub use grid::{Extent, Grid, StepSize};
pub use matrix::{GpuMatrix, tile};
pub use pipeline_cache::PipelineStats;
pub use synthetic::SyntheticSource;
