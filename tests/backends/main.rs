//! Whole models on every backend: the contract, golden logits, llama.cpp's logits and perplexity.
//!
//! The tests of [`gpu`] run on each software driver: `cargo test --test backends gpu::`.

#[path = "../common/mod.rs"]
mod common;

mod cpu;
mod demo;
mod goldens_gguf;
mod gpu;
#[cfg(feature = "grammar")]
mod grammar;
mod pipeline_cache;
mod real_model;
mod scheduler;
