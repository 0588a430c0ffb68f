//! Weights on the device: packed matrices, and the ways to load them.

pub(in crate::gpu) mod fused;
mod host;
mod hqq;
#[cfg(not(target_arch = "wasm32"))]
mod in_place;
pub(in crate::gpu) mod matrix;
pub(in crate::gpu) mod repack;
mod slices;
pub(in crate::gpu) mod store;
pub(in crate::gpu) mod synthetic;
