//! The parts of a model: its configuration, its tensors and their source, its KV cache.

pub mod config;
pub mod kv;
pub mod matrix_reader;
pub mod source;
pub mod synthetic;
pub mod tensors;
pub mod weights;
