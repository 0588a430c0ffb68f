//! Weights on the device: packed matrices, and the ways in which they come there.

pub(in crate::gpu) mod fused;
pub(in crate::gpu) mod hqq;
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::gpu) mod in_place;
pub(in crate::gpu) mod matrix;
pub(in crate::gpu) mod store;
pub(in crate::gpu) mod synthetic;
pub(in crate::gpu) mod upload;
