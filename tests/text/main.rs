//! Tokenizer, streaming decoder and chat templates through the public interface.

mod differential;
mod fixtures;
#[path = "../common/llama_cpp.rs"]
mod llama_cpp;
#[path = "../common/real_model.rs"]
mod real_model;
mod stream;
mod template;
mod tokenizer;
