//! Opens arbitrary bytes as a safetensors file and reads a matrix. The config.json beside it is
//! that of MLX, compressed-tensors or no quantizer. torchao's files describe themselves.
#![no_main]

use gemma4_wgpu::{checkpoint::Checkpoint, model::source::TensorSource};
use libfuzzer_sys::fuzz_target;

const CONFIGS: [&str; 3] = [
    include_str!("../../tests/fixtures/import/mlx/config.json"),
    include_str!("../../tests/fixtures/import/compressed_tensors/config.json"),
    include_str!("../../tests/fixtures/import/torchao/config.json"),
];

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, bytes) = input;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).expect("a written file")
    };
    write("config.json", CONFIGS[choice as usize % CONFIGS.len()].as_bytes());
    write("model.safetensors", bytes);
    let Ok(checkpoint) = Checkpoint::open(directory.path()) else { return };
    for name in ["embed_tokens.weight", "layers.0.mlp.down_proj.weight"] {
        if let Some(info) = checkpoint.info(name) {
            let rows = info.shape.first().copied().unwrap_or(1);
            let _ = pollster::block_on(checkpoint.read(name, 0..rows));
        }
    }
});
