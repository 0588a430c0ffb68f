//! The CPU backend, with two ways to compute.
//!
//! The reference is plain Rust for reading, in which every function is the twin of one kernel.
//! [`ops`] has the functions, and [`CpuBackend`] calls them in order. Kernel tests compare a device
//! with [`ops`].
//!
//! The fast path runs where there is no adapter. It has the same operations with the instructions
//! of the processor. Products with integer weights round activations to int8.

mod arena;
mod attention;
mod backend;
mod forward;
mod instructions;
mod kv_cache;
mod matrix;
pub mod ops;
mod options;
mod path;
mod products;
mod simd;
mod tiles;
mod weight_rows;

pub use backend::CpuBackend;
pub use instructions::Instructions;
pub use kv_cache::KvCache;
pub use matrix::CpuMatrix;
pub use options::CpuOptions;
pub use weight_rows::WeightRows;

use crate::{Error, Result};

/// An empty vector with room for `len` elements. Errors if there is not enough memory.
fn try_with_capacity<T>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len)
        .map_err(|_| out_of_memory(what, len as u128 * size_of::<T>() as u128))?;
    Ok(vec)
}

fn out_of_memory(what: &str, bytes: u128) -> Error {
    Error::Device(format!("no memory for {what} ({bytes} bytes)"))
}
