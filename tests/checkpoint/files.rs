//! [`Checkpoint::open`] on small checkpoints of every layout, and the tensors that it reads.

use crate::support::{GgufFile, HIDDEN, Meta, VOCAB, gemma4, safetensors, text, texts};
use gemma4_wgpu::{
    Error,
    checkpoint::{Checkpoint, gguf::container::Gguf},
    model::{
        config::{Architecture, AttentionKind, ModelConfig, Rope},
        source::TensorSource,
    },
    quant::Dtype,
    text::Vocabulary,
};
use serde_json::json;
use std::{fs, ops::Range, path::Path};
use tempfile::{TempDir, tempdir};

mod gguf;
mod hf;

fn read(checkpoint: &Checkpoint, name: &str, rows: Range<usize>) -> Result<Vec<u8>, Error> {
    pollster::block_on(checkpoint.read(name, rows)).map(|bytes| bytes.into_owned())
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn places_that_hold_no_checkpoint() {
    let directory = tempdir().unwrap();
    let error = |path: &Path| Checkpoint::open(path).err().expect("opened").to_string();
    let join = |name: &str| directory.path().join(name);
    assert!(error(&join("nowhere")).contains("nowhere: "));
    assert!(
        error(directory.path()).contains("neither config.json with safetensors nor a .gguf file")
    );
    fs::write(join("model.safetensors"), safetensors(&[])).unwrap();
    assert!(error(directory.path()).contains("has safetensors but no config.json"));
    assert!(error(&join("model.safetensors")).contains("config.json: missing"));
    fs::remove_file(join("model.safetensors")).unwrap();
    fs::write(join("notes.txt"), "hello").unwrap();
    assert!(error(&join("notes.txt")).contains("neither a .safetensors nor a .gguf file"));
    fs::write(join("empty.gguf"), "").unwrap();
    assert!(error(&join("empty.gguf")).contains("the file is empty"));
    fs::write(join("bad.gguf"), "GGML....").unwrap();
    assert!(error(&join("bad.gguf")).contains("wrong magic"));
    assert!(error(directory.path()).contains("several GGUF models (bad.gguf, empty.gguf"));
    fs::remove_file(join("bad.gguf")).unwrap();
    fs::rename(join("empty.gguf"), join("mmproj-model.gguf")).unwrap();
    gemma4().write(&join("model.Q4_0.gguf"));
    assert!(Checkpoint::open(directory.path()).is_ok());
    // A GGUF file may have any name.
    fs::rename(join("model.Q4_0.gguf"), join("blob")).unwrap();
    assert!(Checkpoint::open(join("blob")).is_ok());
}
