//! Tokenizer, streaming decoder and chat templates through the public interface.

mod channels;
mod channels_random;
#[path = "../checkpoint_support/mod.rs"]
mod checkpoint_support;
mod differential;
mod fixtures;
#[path = "../common/llama_cpp.rs"]
mod llama_cpp;
mod marks;
mod ollama;
#[path = "../common/real_model.rs"]
mod real_model;
mod stream;
mod template;
mod tokenizer;
