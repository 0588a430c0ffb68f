//! Arbitrary bytes as a GGUF file: parses and traverses it, and reads a model config.
#![no_main]

use gemma4_wgpu::{checkpoint::gguf::{container::Gguf, value::Value}, model::config::ModelConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Gguf::parse(bytes) else { return };
    for tensor in file.tensors() {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len() as u64);
        assert_eq!(file.data(tensor).len() as u64, tensor.range.end - tensor.range.start);
    }
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        if let Some(Value::Array(array)) = file.get(key) {
            assert_eq!(array.iter().count(), array.len());
        }
    }
    if let Ok(config) = ModelConfig::from_gguf(&[file]) {
        config.validate().expect("a config that was read is valid");
    }
});
