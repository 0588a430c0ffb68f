//! Vocabularies and reference ids that the text tests share.
//! tests/fixtures/text/ describes how they were made.

use std::path::Path;

use crate::llama_cpp::{json, value};
use gemma4_wgpu::text::{GgufVocabulary, TextAssets, Tokenizer, Vocabulary};
use serde_json::Value;

/// A file of tests/fixtures/text/.
pub fn fixture(name: &str) -> Value {
    json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name))
}

/// A vocabulary that make_vocabularies.py wrote: `llama`, `gemma4` or `gpt2`.
pub fn small_vocabulary(model: &str) -> GgufVocabulary {
    let fixture = fixture(&format!("small_{model}_vocabulary.json"));
    GgufVocabulary {
        model: model.into(),
        pre: fixture["pre"].as_str().unwrap().into(),
        tokens: value(&fixture, "tokens"),
        scores: value(&fixture, "scores"),
        token_types: value(&fixture, "token_types"),
        merges: value(&fixture, "merges"),
        unknown_id: Some(3),
        add_space_prefix: fixture["add_space_prefix"].as_bool().unwrap(),
    }
}

/// Text assets of a checkpoint with this vocabulary: BOS 2, EOS 1.
pub fn assets(vocabulary: Vocabulary) -> TextAssets {
    TextAssets {
        vocabulary: Some(vocabulary),
        bos_id: Some(2),
        eos_ids: vec![1],
        add_bos: true,
        ..Default::default()
    }
}

pub fn small_tokenizer(model: &str) -> Tokenizer {
    Tokenizer::new(&assets(Vocabulary::Gguf(small_vocabulary(model)))).unwrap()
}
