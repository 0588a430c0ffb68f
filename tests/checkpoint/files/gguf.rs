//! GGUF files, whole and split.

use super::*;

fn open_gguf(file: &GgufFile) -> Result<Checkpoint, Error> {
    let directory = tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    file.write(&path);
    Checkpoint::open(&path)
}

fn gguf_error(change: impl FnOnce(&mut GgufFile) -> &mut GgufFile) -> String {
    let mut file = gemma4();
    change(&mut file);
    open_gguf(&file).err().expect("opened").to_string()
}

#[test]
fn gguf_tensors_by_canonical_name() {
    for version in [2, 3] {
        let mut file = gemma4();
        file.version = version;
        let checkpoint = open_gguf(&file).unwrap();
        assert_eq!(checkpoint.file_bytes(), file.bytes().len() as u64);
        assert_eq!(checkpoint.description(), "Tiny, GGUF");
        let info = checkpoint.info("layers.1.mlp.gate_proj.weight").unwrap();
        assert_eq!((info.dtype, info.shape), (Dtype::F32, vec![96, HIDDEN as usize]));
        let rows = f32s(&read(&checkpoint, "layers.1.mlp.gate_proj.weight", 2..4).unwrap());
        assert_eq!(rows, (64..128).map(|i| i as f32).collect::<Vec<_>>());
        // A tensor with one dimension is one row.
        assert_eq!(read(&checkpoint, "norm.weight", 0..1).unwrap().len(), 4 * HIDDEN as usize);
        assert_eq!(read(&checkpoint, "layers.0.layer_scalar", 0..1).unwrap(), 0f32.to_le_bytes());
        assert!(checkpoint.info("layers.1.self_attn.v_proj.weight").is_none());
        for (name, rows) in
            [("norm.weight", 0..2), ("embed_tokens.weight", 7..9), ("lm_head.weight", 0..1)]
        {
            let message = read(&checkpoint, name, rows).unwrap_err().to_string();
            assert!(message.starts_with(&format!("tensor {name}: ")), "{message}");
        }
    }
}

#[test]
fn gguf_config_gemma4() {
    let checkpoint = open_gguf(&gemma4()).unwrap();
    let config = checkpoint.config();
    assert_eq!(config.architecture, Architecture::Gemma4);
    assert_eq!((config.vocab_size, config.hidden_size), (VOCAB as usize, HIDDEN as usize));
    assert_eq!((config.final_logit_softcap, config.attention_scale), (Some(30.0), 1.0));
    assert_eq!((config.max_position_embeddings, config.norm_weight_offset), (64, 0.0));
    assert!(config.v_norm && config.layer_scalar && config.tie_word_embeddings);
    let [sliding, full] = config.layers.as_slice() else { panic!("{:?}", config.layers) };
    assert_eq!(sliding.attention, AttentionKind::Sliding { window: 4 });
    assert_eq!((sliding.head_dim, sliding.n_kv_heads, sliding.intermediate_size), (8, 2, 64));
    assert_eq!(sliding.rope, Rope { theta: 1e4, rotated_pairs: 4, scale: 1.0 });
    assert_eq!(full.attention, AttentionKind::Full);
    assert_eq!((full.head_dim, full.n_kv_heads, full.intermediate_size), (16, 1, 96));
    assert_eq!(full.rope, Rope { theta: 1e6, rotated_pairs: 2, scale: 1.0 });
    assert!(full.k_eq_v && !sliding.k_eq_v);
    let mut untied = gemma4();
    untied.tensor("output.weight", &[VOCAB, HIDDEN], 0, vec![1; 4 * (VOCAB * HIDDEN) as usize]);
    let checkpoint = open_gguf(&untied).unwrap();
    assert!(!checkpoint.config().tie_word_embeddings);
    assert!(checkpoint.info("lm_head.weight").is_some());
}

/// Metadata in the form of converters for Gemma 3, with `layers` layers.
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
        .set("gemma3.attention.layer_norm_rms_epsilon", Meta::F32(1e-6))
        .set("gemma3.attention.sliding_window", Meta::U32(512))
        .set("gemma3.rope.freq_base", Meta::F32(1e6))
        .f32("token_embd.weight", &[8, 64]);
    file
}

fn gguf_config(file: &GgufFile) -> Result<ModelConfig, Error> {
    ModelConfig::from_gguf(&[Gguf::parse(&file.bytes()).unwrap()])
}

#[test]
fn gguf_config_gemma3() {
    let mut file = gemma3(12);
    file.set("gemma3.rope.scaling.type", text("linear"))
        .set("gemma3.rope.scaling.factor", Meta::F32(8.0));
    let config = gguf_config(&file).unwrap();
    let full: Vec<bool> =
        config.layers.iter().map(|layer| layer.attention == AttentionKind::Full).collect();
    assert_eq!(full, [[false, false, false, false, false, true]; 2].concat());
    assert_eq!(config.attention_scale, 0.5);
    assert!(!config.v_norm && !config.layer_scalar);
    assert_eq!(config.layers[0].rope, Rope { theta: 1e4, rotated_pairs: 2, scale: 1.0 });
    assert_eq!(config.layers[5].rope, Rope { theta: 1e6, rotated_pairs: 2, scale: 8.0 });
    // The 27B model scales its queries by (hidden_size/heads)^-0.5.
    assert_eq!(gguf_config(&gemma3(62)).unwrap().attention_scale, 0.25);
    file.set("gemma3.attention.sliding_window_pattern", Meta::U32(4));
    let config = gguf_config(&file).unwrap();
    assert_eq!(config.layers[3].attention, AttentionKind::Full);
    assert_eq!(config.layers[5].attention, AttentionKind::Sliding { window: 512 });
    file.remove("gemma3.attention.sliding_window");
    assert!(
        gguf_config(&file)
            .unwrap()
            .layers
            .iter()
            .all(|layer| layer.attention == AttentionKind::Full)
    );
}

#[test]
fn gguf_features_are_refused_by_name() {
    for (key, value, part) in [
        ("general.architecture", text("llama"), "architecture \"llama\""),
        ("gemma4.nextn_predict_layers", Meta::U32(1), "multi-token prediction"),
        ("gemma4.attn_logit_softcapping", Meta::F32(50.0), "attention logit softcapping"),
        ("gemma4.attention.causal", Meta::Bool(false), "bidirectional"),
        ("gemma4.rope.scaling.type", text("yarn"), "RoPE scaling \"yarn\""),
        ("gemma4.rope.dimension_count", Meta::U32(4), "RoPE over a part"),
        ("gemma4.attention.value_length", Meta::U32(32), "values longer"),
    ] {
        let message = gguf_error(|file| file.set(key, value));
        assert!(message.starts_with("unsupported: ") && message.contains(part), "{message}");
    }
    for (key, part) in [
        ("embedding_length_per_layer_input", "per-layer"),
        ("attention.shared_kv_layers", "KV sharing"),
        ("expert_count", "mixture of experts"),
    ] {
        let message = gguf_config(gemma3(6).set(&format!("gemma3.{key}"), Meta::U32(2)))
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("unsupported: ") && message.contains(part), "{message}");
    }
    let message = gguf_error(|file| file.set("gemma4.expert_count", Meta::U32(128)));
    assert!(message.contains("gemma4.expert_used_count is missing"), "{message}");
    let message =
        gguf_error(|file| file.remove_tensor("rope_freqs.weight").f32("rope_freqs.weight", &[8]));
    assert!(message.contains("RoPE factors that differ"), "{message}");
}

#[test]
fn gguf_bad_metadata_is_named() {
    for (key, value, part) in [
        ("gemma4.block_count", Meta::U32(3), "has 2 values for 3 layers"),
        ("gemma4.block_count", Meta::U32(u32::MAX), "block_count"),
        ("gemma4.block_count", text("two"), "block_count is not a whole number"),
        ("gemma4.attention.head_count", Meta::U32(0), "heads is 0"),
        (
            "gemma4.attention.head_count_kv",
            Meta::I32s(vec![-1, 1]),
            "head_count_kv is not a whole number",
        ),
        ("gemma4.attention.sliding_window_pattern", Meta::U32(6), "sliding_window_pattern"),
        ("gemma4.attention.key_length_swa", Meta::U32(7), "values longer than keys"),
        ("gemma4.rope.freq_base", Meta::F32(f32::NAN), "RoPE theta"),
        ("gemma4.rope.scaling.factor", Meta::F32(-1.0), "RoPE factor"),
        (
            "gemma4.attention.shared_kv_layers",
            Meta::U32(1),
            "shared_kv_layers = 1: a layer has none of its kind",
        ),
        (
            "gemma4.attention.shared_kv_layers",
            Meta::U32(9),
            "shared_kv_layers = 9: more than there are layers",
        ),
        (
            "gemma4.embedding_length_per_layer_input",
            Meta::U32(4),
            "per_layer_token_embd.weight: missing",
        ),
    ] {
        let message = gguf_error(|file| file.set(key, value));
        assert!(message.contains(part), "{message} lacks {part}");
    }
    for key in [
        "general.architecture",
        "gemma4.embedding_length",
        "gemma4.attention.key_length_swa",
        "gemma4.rope.freq_base",
    ] {
        let message = gguf_error(|file| {
            // The length of values would replace that of keys if it were there.
            file.remove(&key.replace("key_length", "value_length")).remove(key)
        });
        assert_eq!(message, format!("model config: {key} is missing"));
    }
    for name in ["token_embd.weight", "rope_freqs.weight"] {
        let message = gguf_error(|file| file.remove_tensor(name));
        assert_eq!(message, format!("tensor {name}: missing from the checkpoint"));
    }
}

#[test]
fn gguf_types() {
    for (type_id, dtype, block_elements, block_bytes) in [
        (0, Dtype::F32, 1, 4),
        (1, Dtype::F16, 1, 2),
        (30, Dtype::BF16, 1, 2),
        (2, Dtype::Q4_0, 32, 18),
        (3, Dtype::Q4_1, 32, 20),
        (6, Dtype::Q5_0, 32, 22),
        (7, Dtype::Q5_1, 32, 24),
        (8, Dtype::Q8_0, 32, 34),
        (12, Dtype::Q4_K, 256, 144),
        (13, Dtype::Q5_K, 256, 176),
        (14, Dtype::Q6_K, 256, 210),
    ] {
        let mut file = gemma4();
        let bytes =
            (0..3 * 512 / block_elements * block_bytes).map(|i| i as u8).collect::<Vec<u8>>();
        file.tensor("per_layer_model_proj.weight", &[3, 512], type_id, bytes.clone());
        let checkpoint = open_gguf(&file).unwrap();
        let name = "per_layer_model_projection.weight";
        assert_eq!(checkpoint.info(name).unwrap().dtype, dtype);
        assert_eq!(read(&checkpoint, name, 0..3).unwrap(), bytes);
        assert_eq!(
            read(&checkpoint, name, 1..2).unwrap(),
            bytes[bytes.len() / 3..bytes.len() / 3 * 2]
        );
    }
    let message = gguf_error(|file| file.tensor("output.weight", &[8, 256], 11, vec![0; 8 * 110]));
    assert!(message.starts_with("tensor output.weight: type Q3_K is not supported"), "{message}");
    let message = gguf_error(|file| file.tensor("output.weight", &[8, 256], 777, vec![]));
    assert!(message.contains("type number 777"), "{message}");
    let message = gguf_error(|file| file.tensor("output.weight", &[8, 33], 8, vec![0; 8 * 34]));
    assert!(message.contains("shape [8, 33] does not fit Q8_0"), "{message}");
    // A tensor that no layer uses may have any type.
    let mut file = gemma4();
    file.tensor("v.patch_embd.weight", &[8, 256], 777, vec![1; 64]);
    assert!(open_gguf(&file).is_ok());
}

/// Writes [`gemma4`] in three parts. The first has no tensor, as from llama.cpp's splitter.
fn split(directory: &Path, change: impl FnOnce(&mut [GgufFile; 3])) {
    let whole = gemma4();
    let mut parts = [0, 1, 2].map(|number| {
        let mut part = GgufFile::new();
        part.set("split.no", Meta::U32(number)).set("split.count", Meta::U32(3));
        part.set("split.tensors.count", Meta::I32(whole.tensors.len() as i32));
        part
    });
    for (key, value) in &whole.metadata {
        parts[0].set(key, value.clone());
    }
    for (index, tensor) in whole.tensors.iter().enumerate() {
        parts[1 + index % 2].tensors.push(tensor.clone());
    }
    change(&mut parts);
    for (index, part) in parts.iter().enumerate() {
        part.write(&directory.join(format!("tiny-{:05}-of-00003.gguf", index + 1)));
    }
}

#[test]
fn split_gguf() {
    let directory = tempdir().unwrap();
    split(directory.path(), |_| {});
    let single = open_gguf(&gemma4()).unwrap();
    let part = |number: usize| directory.path().join(format!("tiny-0000{number}-of-00003.gguf"));
    for path in [part(1), part(2), part(3), directory.path().into()] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.config(), single.config());
        for (name, rows) in
            [("embed_tokens.weight", 1..3), ("layers.1.mlp.down_proj.weight", 0..32)]
        {
            let whole = read(&single, name, rows.clone()).unwrap();
            assert_eq!(read(&checkpoint, name, rows).unwrap(), whole);
        }
    }
    fs::remove_file(part(2)).unwrap();
    let message = Checkpoint::open(part(1)).err().unwrap().to_string();
    assert!(message.contains("tiny-00002-of-00003.gguf"), "{message}");
}

#[test]
fn split_gguf_that_does_not_fit() {
    let fails = |change: fn(&mut [GgufFile; 3]), part: &str| {
        let directory = tempdir().unwrap();
        split(directory.path(), change);
        let message = Checkpoint::open(directory.path()).err().unwrap().to_string();
        assert!(message.contains(part), "{message} lacks {part}");
    };
    fails(
        |[_, second, _]| _ = second.set("split.no", Meta::U32(2)),
        "is part 3 of 3 but is not named",
    );
    fails(
        |[.., third]| _ = third.set("split.count", Meta::U32(4)),
        "is part 3 of 4 but is not named",
    );
    fails(|[.., third]| _ = third.tensors.pop(), "the first says");
    let twice = |[first, ..]: &mut [GgufFile; 3]| {
        first.remove("split.tensors.count").f32("output_norm.weight", &[HIDDEN]);
    };
    fails(twice, "tensor norm.weight: is in the checkpoint twice");
    let renamed = tempdir().unwrap();
    split(renamed.path(), |_| {});
    fs::rename(renamed.path().join("tiny-00001-of-00003.gguf"), renamed.path().join("tiny.gguf"))
        .unwrap();
    let message = Checkpoint::open(renamed.path().join("tiny.gguf")).err().unwrap().to_string();
    assert!(message.contains("is part 1 of 3 but is not named -00001-of-00003.gguf"), "{message}");
}

#[test]
fn gguf_text_assets() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut file = gemma4();
    file.set("tokenizer.ggml.model", text("gemma4"))
        .set(
            "tokenizer.ggml.tokens",
            texts(&["<pad>", "<eos>", "<bos>", "<unk>", "a", "▁b", "<turn|>", "<|tool_response>"]),
        )
        .set("tokenizer.ggml.scores", Meta::F32s((0..8).map(|i| -(i as f32)).collect()))
        .set("tokenizer.ggml.token_type", Meta::I32s(vec![3, 3, 3, 2, 1, 1, 3, 4]))
        .set("tokenizer.ggml.merges", texts(&["a b"]))
        .set("tokenizer.ggml.bos_token_id", Meta::U32(2))
        .set("tokenizer.ggml.eos_token_id", Meta::U32(1))
        .set("tokenizer.ggml.unknown_token_id", Meta::U32(3))
        .set("tokenizer.ggml.add_bos_token", Meta::Bool(false))
        .set("tokenizer.chat_template", text("{{ messages }}"))
        .set("general.sampling.temp", Meta::F32(0.5))
        .set("general.sampling.top_k", Meta::I32(64));
    file.write(&path);
    let assets = Checkpoint::open(&path).unwrap().text_assets().unwrap();
    assert_eq!((assets.bos_id, assets.eos_ids, assets.add_bos), (Some(2), vec![1, 6, 7], true));
    assert_eq!(assets.chat_template.as_deref(), Some("{{ messages }}"));
    assert_eq!(
        (assets.sampling.temperature, assets.sampling.top_k, assets.sampling.top_p),
        (Some(0.5), Some(64), None)
    );
    let Some(Vocabulary::Gguf(vocabulary)) = assets.vocabulary else { panic!("no vocabulary") };
    assert_eq!((vocabulary.model.as_str(), vocabulary.tokens[5].as_str()), ("gemma4", "▁b"));
    assert_eq!(
        (vocabulary.scores[3], vocabulary.token_types[3], vocabulary.unknown_id),
        (-3.0, 2, Some(3))
    );
    assert_eq!((vocabulary.merges, vocabulary.add_space_prefix), (vec!["a b".to_string()], false));

    // A tokenizer.json beside the file takes precedence.
    fs::write(directory.path().join("tokenizer.json"), b"{}").unwrap();
    let assets = Checkpoint::open(&path).unwrap().text_assets().unwrap();
    assert!(matches!(assets.vocabulary, Some(Vocabulary::TokenizerJson(bytes)) if bytes == b"{}"));
    fs::remove_file(directory.path().join("tokenizer.json")).unwrap();

    for (key, value, part) in [
        ("tokenizer.ggml.scores", Meta::F32s(vec![0.0]), "scores has 1 entries for 8 tokens"),
        ("tokenizer.ggml.tokens", Meta::U32s(vec![0; 8]), "entry 0 cannot be used"),
        ("tokenizer.ggml.tokens", texts(&[]), "missing or empty"),
        ("tokenizer.ggml.eos_token_id", text("x"), "eos_token_id is not a whole number"),
        ("tokenizer.chat_template", Meta::U32(1), "chat_template is not a UTF-8 string"),
        ("general.sampling.temp", Meta::F32(f32::NAN), "temperature = NaN"),
    ] {
        let mut broken = file.clone();
        broken.set(key, value).write(&path);
        let message = Checkpoint::open(&path).unwrap().text_assets().unwrap_err().to_string();
        assert!(message.contains(part), "{message} lacks {part}");
    }
}
