//! All parts of a model without a backend: files, config, packed numbers, text and sampling.

mod config;
mod corrupt;
mod experts;
mod files;
mod import;
#[path = "../common/llama_cpp.rs"]
mod llama_cpp;
mod quant_pack;
mod quant_reference;
mod ranged;
mod real;
#[path = "../common/real_model.rs"]
mod real_model;
mod sampling;
mod sources;
mod support;
mod text;
