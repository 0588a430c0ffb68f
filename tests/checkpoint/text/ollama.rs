//! Metadata in the form of Ollama's converter.

use std::fs;

use gemma4_wgpu::{
    checkpoint::{Checkpoint, gguf::container::Gguf},
    model::config::{ModelConfig, Rope},
    text::{GgufVocabulary, TextAssets, Vocabulary},
};
use tempfile::tempdir;

use crate::support::{GgufFile, Meta, gemma4, text, texts};

fn assets_of(file: &GgufFile) -> TextAssets {
    let directory = tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    fs::write(&path, file.bytes()).unwrap();
    Checkpoint::open(&path).unwrap().text_assets().unwrap()
}

fn vocabulary(assets: &TextAssets) -> &GgufVocabulary {
    match &assets.vocabulary {
        Some(Vocabulary::Gguf(vocabulary)) => vocabulary,
        other => panic!("{other:?}"),
    }
}

/// Gemma 4: model "llama", scores equal to the ids, several end tokens, no key for a leading space.
fn file() -> GgufFile {
    let mut file = gemma4();
    let tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "▁b", "<turn|>", "<|tool_response>"];
    file.set("tokenizer.ggml.model", text("llama"))
        .set("tokenizer.ggml.pre", text("gemma4"))
        .set("tokenizer.ggml.tokens", texts(&tokens))
        .set("tokenizer.ggml.scores", Meta::F32s((0..8).map(|id| id as f32).collect()))
        .set("tokenizer.ggml.token_type", Meta::I32s(vec![3, 3, 3, 2, 1, 1, 3, 4]))
        .set("tokenizer.ggml.merges", texts(&["a b"]))
        .set("tokenizer.ggml.bos_token_id", Meta::U32(2))
        .set("tokenizer.ggml.eos_token_id", Meta::U32(1))
        .set("tokenizer.ggml.eos_token_ids", Meta::I32s(vec![1, 4, -1]))
        .set("tokenizer.ggml.unknown_token_id", Meta::U32(3));
    file
}

#[test]
fn gemma4_assets() {
    let mut file = file();
    file.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
    let assets = assets_of(&file);
    assert_eq!((&assets.eos_ids, assets.add_bos), (&vec![1, 4, 6, 7], true));
    assert!(!vocabulary(&assets).add_space_prefix);
}

/// If the file does not say, Gemma's pieces by score have no leading space. Others have one.
#[test]
fn a_space_in_front() {
    for (first, add) in [("<pad>", false), ("[PAD]", true)] {
        let mut file = file();
        file.set(
            "tokenizer.ggml.tokens",
            texts(&[first, "<eos>", "<bos>", "<unk>", "a", "b", "c", "d"]),
        )
        .set("tokenizer.ggml.add_bos_token", Meta::Bool(false))
        .remove("tokenizer.ggml.merges")
        .remove("tokenizer.ggml.pre");
        let assets = assets_of(&file);
        assert_eq!((vocabulary(&assets).add_space_prefix, assets.add_bos), (add, false), "{first}");
        file.set("tokenizer.ggml.add_space_prefix", Meta::Bool(!add));
        assert_eq!(vocabulary(&assets_of(&file)).add_space_prefix, !add, "{first}");
    }
}

/// Values that llama.cpp's converter copies from generation_config.json.
#[test]
fn sampling_and_suppressed_tokens() {
    let mut file = file();
    file.set("tokenizer.ggml.suppress_tokens", Meta::I32s(vec![5, 0]))
        .set("general.sampling.top_k", Meta::I32(-1))
        .set("general.sampling.min_p", Meta::F32(0.25))
        .set("general.sampling.penalty_repeat", Meta::F32(1.5));
    let assets = assets_of(&file);
    let sampling = assets.sampling;
    assert_eq!(assets.suppressed_ids, [5, 0]);
    assert_eq!(
        (sampling.top_k, sampling.min_p, sampling.repetition_penalty),
        (Some(0), Some(0.25), Some(1.5))
    );
    file.set("general.sampling.penalty_last_n", Meta::I32(0));
    assert_eq!(assets_of(&file).sampling.repetition_penalty, None);
}

/// Gemma 3 with `layers` layers, without the keys that older versions lack.
fn gemma3(layers: u32) -> GgufFile {
    let mut file = GgufFile::new();
    file.set("general.architecture", text("gemma3"))
        .set("gemma3.block_count", Meta::U32(layers))
        .set("gemma3.context_length", Meta::U32(32768))
        .set("gemma3.embedding_length", Meta::U32(64))
        .set("gemma3.feed_forward_length", Meta::U32(64))
        .set("gemma3.attention.head_count", Meta::U32(4))
        .set("gemma3.attention.head_count_kv", Meta::U32(2))
        .set("gemma3.attention.key_length", Meta::U32(4))
        .set("gemma3.attention.sliding_window", Meta::U32(512))
        .set("gemma3.final_logit_softcapping", Meta::F32(30.0))
        .f32("token_embd.weight", &[8, 64]);
    file
}

fn config(file: &GgufFile) -> ModelConfig {
    ModelConfig::from_gguf(&[Gguf::parse(&file.bytes()).unwrap()]).unwrap()
}

#[test]
fn gemma3_keys() {
    let rope = |theta: f32, scale: f32| Rope { theta, rotated_pairs: 2, scale };
    let plain = config(&gemma3(12));
    assert_eq!((plain.rms_norm_eps, plain.final_logit_softcap), (1e-6, Some(30.0)));
    assert_eq!((plain.layers[0].rope, plain.layers[5].rope), (rope(1e4, 1.0), rope(1e6, 1.0)));
    // Sizes whose full layers scale positions, which the files do not say, and one without a
    // softcap.
    for (layers, scale, cap) in
        [(26, 1.0, None), (34, 8.0, Some(30.0)), (48, 8.0, Some(30.0)), (62, 8.0, Some(30.0))]
    {
        let config = config(&gemma3(layers));
        assert_eq!(
            (config.layers[5].rope, config.final_logit_softcap),
            (rope(1e6, scale), cap),
            "{layers}"
        );
        assert_eq!(config.layers[0].rope, rope(1e4, 1.0));
    }
    let mut named = gemma3(34);
    named
        .set("gemma3.rope.global.freq_base", Meta::F32(5e5))
        .set("gemma3.rope.local.freq_base", Meta::F32(2e4))
        .set("gemma3.rope.scaling.factor", Meta::F32(4.0))
        .set("gemma3.attention.layer_norm_rms_epsilon", Meta::F32(1e-5));
    let found = config(&named);
    assert_eq!((found.layers[0].rope, found.layers[5].rope), (rope(2e4, 1.0), rope(5e5, 4.0)));
    assert_eq!(found.rms_norm_eps, 1e-5);
    // Other converters write all values.
    let mut other = gemma3(26);
    other.set("gemma3.rope.freq_base", Meta::F32(1e6));
    assert_eq!(config(&other).final_logit_softcap, Some(30.0));
}
