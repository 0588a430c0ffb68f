//! Tokenizer, streaming decoder and chat templates through the public interface.

mod channels;
mod channels_random;
mod differential;
mod fixtures;
#[path = "../common/llama_cpp.rs"]
mod llama_cpp;
mod marks;
#[path = "../common/real_model.rs"]
mod real_model;
mod stream;
mod template;
mod tokenizer;
