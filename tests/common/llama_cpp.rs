//! Reads files of llama.cpp's results.

use std::{fs, path::Path};

use gemma4_wgpu::text::Tokenizer;
use serde_json::Value;

/// Reads a JSON file.
#[track_caller]
pub fn json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

/// The value of `key`, for example an array of numbers.
#[track_caller]
pub fn value<T: serde::de::DeserializeOwned>(object: &Value, key: &str) -> T {
    serde_json::from_value(object[key].clone()).unwrap_or_else(|error| panic!("{key}: {error}"))
}

/// Compares the ids of every text.
/// Control tokens are encoded as text (key `literal`) or recognized (key `special`).
pub fn assert_same_ids(tokenizer: &Tokenizer, texts: &Value, literal: &str) {
    let texts = texts.as_array().unwrap();
    assert!(!texts.is_empty());
    for case in texts {
        let text = case["text"].as_str().unwrap();
        for (key, special) in [(literal, false), ("special", true)] {
            let expected: Vec<u32> = value(case, key);
            assert_eq!(tokenizer.encode(text, special).unwrap(), expected, "{key} {text:?}");
        }
    }
}
