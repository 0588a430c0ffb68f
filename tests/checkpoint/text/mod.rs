//! Tokenizer, streaming decoder and chat templates through the public interface.

mod channels;
mod channels_random;
mod differential;
mod fixtures;
mod marks;
mod ollama;
mod stream;
mod template;
mod tokenizer;
