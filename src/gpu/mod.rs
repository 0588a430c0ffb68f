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
mod kernel_options;
pub mod kernels;
mod layers;
mod matrix;
mod memory;
mod pipeline_cache;
mod plan;
mod profile;
mod scratch;
mod select;
mod store;
mod suppressed;
mod synthetic;
mod unroll;
mod upload;
mod variant;
mod wanted;
#[cfg(not(target_arch = "wasm32"))]
mod warm_up;
mod wgsl;

pub use adapter::{AdapterFacts, CooperativeMatrix, adapters};
pub use backend::GpuBackend;
pub use buffers::GpuBuffer;
pub use device::Gpu;
pub use dispatch::{Binding, Dispatch, KernelSource};
pub use grid::{Extent, Grid, StepSize};
pub use kernel_options::KernelOptions;
pub use matrix::{GpuMatrix, tile};
pub use pipeline_cache::PipelineStats;
pub use select::{DeviceOptions, select};
pub use synthetic::SyntheticSource;
pub use variant::{Coop, Variant};
