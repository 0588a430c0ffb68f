//! Safetensors files: read, written, and opened with their config.json as a checkpoint.

pub(crate) mod files;
pub mod header;
pub mod writer;
