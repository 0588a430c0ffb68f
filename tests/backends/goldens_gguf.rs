//! Small Gemma 4 models in the form of llama.cpp's converter.
//! They are compared with llama.cpp's f32 logits and its tokenization.
//! tools/llama_reference describes how they were made.

use crate::common;
use crate::common::{
    EXACT_KERNELS, cpu,
    goldens::{self, cases, directory},
    gpu, llama_cpp,
};
use gemma4_wgpu::{checkpoint::Checkpoint, text::Tokenizer};

/// The tolerance of a logit. Nearly all of it is due to llama.cpp's f16 table for GELU.
const TOLERANCE: f32 = 0.02;

/// Every case with the file to open.
const CASES: [(&str, &str); 3] = [
    ("gemma4", "model.gguf"),
    ("gemma4_effective", "model.gguf"),
    ("gemma4_mixed_split", "model-00001-of-00003.gguf"),
];

fn check(make: common::Make) {
    for (name, file) in CASES {
        let case = directory("goldens_gguf").join(name);
        goldens::check(&case, &case.join(file), TOLERANCE, make);
    }
}

#[test]
fn every_case_is_tested() {
    assert_eq!(CASES.map(|(name, _)| name).as_slice(), cases(&directory("goldens_gguf")));
}

#[test]
fn cpu_gives_llama_cpp_logits() {
    check(&cpu);
}

#[test]
fn wgpu_gives_llama_cpp_logits() {
    check(&gpu(EXACT_KERNELS));
}

#[cfg(feature = "mlx")]
#[test]
fn mlx_gives_llama_cpp_logits() {
    check(&common::mlx);
}

#[test]
fn tokenizer_gives_llama_cpp_ids() {
    for (name, file) in CASES {
        let case = directory("goldens_gguf").join(name);
        let assets = Checkpoint::open(case.join(file)).unwrap().text_assets().unwrap();
        let tokenizer = Tokenizer::new(&assets).unwrap();
        let rows = llama_cpp::json(&case.join("tokenization.json"));
        // llama.cpp lets any text contain the marks of channels, as its files type them as
        // user-defined.
        let is_marked =
            |row: &serde_json::Value| row["text"].as_str().unwrap().contains("<|channel>");
        let (marked, plain): (Vec<_>, Vec<_>) =
            rows.as_array().unwrap().iter().cloned().partition(is_marked);
        llama_cpp::assert_same_ids(&tokenizer, &serde_json::Value::Array(plain), "plain");
        for row in &marked {
            let ids = |special| tokenizer.encode(row["text"].as_str().unwrap(), special).unwrap();
            let expected: Vec<u32> = llama_cpp::value(row, "special");
            assert_eq!(ids(true), expected);
            assert!(ids(false).iter().all(|&id| !tokenizer.is_special(id)));
        }
    }
}
