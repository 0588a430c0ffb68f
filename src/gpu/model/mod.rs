//! The forward pass: dispatches of the kernels for a step, and the buffers that they use.

mod allocator;
mod attention;
pub(in crate::gpu) mod capacity;
mod expert_buffers;
mod expert_weights;
mod experts;
pub(in crate::gpu) mod forward;
pub(in crate::gpu) mod head;
pub(in crate::gpu) mod layers;
mod linear;
mod mlp;
pub(in crate::gpu) mod outputs;
mod per_layer;
pub(in crate::gpu) mod persistent;
pub(in crate::gpu) mod recorder;
pub(in crate::gpu) mod runner;
pub(in crate::gpu) mod step;
pub(in crate::gpu) mod suppressed;
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::gpu) mod warm_up;
pub(in crate::gpu) mod workspace;
