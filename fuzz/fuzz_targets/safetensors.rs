//! Arbitrary bytes as a safetensors file: parses the header, whose tensors must be within the file.
#![no_main]

use gemma4_wgpu::checkpoint::safetensors::header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = header::parse(bytes) else { return };
    for tensor in tensors {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len() as u64);
    }
});
