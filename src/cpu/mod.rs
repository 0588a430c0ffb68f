//! The reference backend: plain Rust, every function the twin of one kernel, written to be read.
//!
//! [`ops`] holds the functions and [`CpuBackend`] strings them together; kernel tests compare
//! a device with [`ops`], and `--backend cpu` runs where there is no adapter.

mod backend;
mod forward;
mod kv_cache;
mod matrix;
pub mod ops;

pub use backend::CpuBackend;
pub use kv_cache::KvCache;
pub use matrix::CpuMatrix;

use crate::{Error, Result};

/// An empty vector with room for `len` elements. Errors if the machine has not that much memory.
fn try_with_capacity<T>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len)
        .map_err(|_| out_of_memory(what, len as u128 * size_of::<T>() as u128))?;
    Ok(vec)
}

fn out_of_memory(what: &str, bytes: u128) -> Error {
    Error::Device(format!("no memory for {what} ({bytes} bytes)"))
}
