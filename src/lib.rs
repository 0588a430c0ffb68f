//! Runs Google's Gemma 4 (and Gemma 3) text models in int4 on any GPU, from one set of WGSL
//! kernels.
//!
//! The way of a token: a [`checkpoint::Checkpoint`] gives a [`model::config::ModelConfig`] and tensors; a
//! [`backend::Backend`] packs them for its device; [`generate`] feeds it tokens that [`text`] made
//! and samples what comes back with [`sampling`].

pub mod backend;
pub mod checkpoint;
pub mod convert;
pub mod cpu;
pub mod error;
pub mod generate;
pub mod gpu;
#[cfg(not(target_arch = "wasm32"))]
pub mod hub;
mod json;
pub mod memory;
#[cfg(feature = "mlx")]
pub mod mlx;
pub mod model;
pub mod quant;
pub mod quantize;
pub mod sampling;
pub mod text;

#[cfg(feature = "cli")]
pub mod cli;

pub use error::{Error, Result};
