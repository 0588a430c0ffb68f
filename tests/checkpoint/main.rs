//! What a model is made of: files, configuration, packed numbers, text and sampling. No backend.

mod config;
mod corrupt;
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
