//! GGUF files: read, written, and opened as a checkpoint.

pub(crate) mod config;
pub mod container;
pub(super) mod files;
mod types;
pub mod value;
pub mod writer;
