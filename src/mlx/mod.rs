//! The MLX backend: Apple's kernels on a Mac's GPU, or the same operations on a CPU.
//!
//! `shim.cpp` is a C interface to MLX's C++, and `ffi` loads it. [`ops`] is the safe layer. The
//! rest is a backend like the others.

mod array;
mod backend;
mod device;
mod engine;
mod ffi;
mod forward;
mod kv_cache;
mod mask;
mod matrix;
pub mod ops;
mod worker;

pub use backend::{Activations, MlxBackend, MlxOptions};
pub use device::{Facts, active_bytes, facts, peak_bytes, reset_peak};
pub use kv_cache::KvCache;
pub use matrix::MlxMatrix;
