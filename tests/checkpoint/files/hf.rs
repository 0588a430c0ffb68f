//! Directories of safetensors files.

use super::*;

/// A config.json of one full layer: hidden 4, one head of 2, FFN 4, vocabulary 3.
fn hf_directory() -> TempDir {
    let directory = tempdir().unwrap();
    let config = json!({
        "model_type": "gemma3", "eos_token_id": [1, 106],
        "text_config": {
            "model_type": "gemma3_text", "vocab_size": 3, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
            "head_dim": 2,
        },
    });
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}

#[test]
fn safetensors_in_one_file() {
    for prefix in ["model.", "model.language_model.", "language_model.model."] {
        let directory = hf_directory();
        let path = directory.path().join("model.safetensors");
        let (embed, norm) =
            (format!("{prefix}embed_tokens.weight"), format!("{prefix}norm.weight"));
        // The odd size of the first tensor makes the others unaligned.
        let file = safetensors(&[
            ("model.vision_tower.patch.weight", "F8_E4M3", &[3], &[9; 3]),
            (&embed, "BF16", &[3, 4], &(0..24).collect::<Vec<u8>>()),
            (&norm, "F32", &[4], &[1; 16]),
            ("lm_head.weight", "F16", &[3, 4], &[2; 24]),
            ("audio_tower.norm.weight", "I64", &[1], &[0; 8]),
        ]);
        fs::write(&path, &file).unwrap();
        fs::write(directory.path().join("chat_template.jinja"), "T").unwrap();
        for place in [directory.path(), &path] {
            let checkpoint = Checkpoint::open(place).unwrap();
            assert_eq!(checkpoint.description(), "Gemma 3, 1 layers, safetensors");
            let info = checkpoint.info("embed_tokens.weight").unwrap();
            assert_eq!((info.dtype, info.shape), (Dtype::BF16, vec![3, 4]));
            assert_eq!(
                read(&checkpoint, "embed_tokens.weight", 1..3).unwrap(),
                (8..24).collect::<Vec<u8>>()
            );
            assert_eq!(checkpoint.info("lm_head.weight").unwrap().dtype, Dtype::F16);
            assert_eq!(read(&checkpoint, "norm.weight", 0..1).unwrap(), [1; 16]);
            let assets = checkpoint.text_assets().unwrap();
            assert_eq!(
                (assets.eos_ids, assets.chat_template.as_deref()),
                (vec![1, 106], Some("T"))
            );
        }
    }
}

#[test]
fn safetensors_written_by_the_reference_crate() {
    let directory = hf_directory();
    let data: Vec<u8> = (0..48).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3, 4], &data).unwrap();
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    let path = directory.path().join("model.safetensors");
    safetensors::serialize_to_file([("model.embed_tokens.weight", view)], metadata, &path).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(read(&checkpoint, "embed_tokens.weight", 0..3).unwrap(), data);
}

#[test]
fn sharded_safetensors() {
    let directory = hf_directory();
    let write = |name: &str, bytes: Vec<u8>| fs::write(directory.path().join(name), bytes).unwrap();
    let open = || Checkpoint::open(directory.path());
    let index = |shards: serde_json::Value| {
        let index = json!({"metadata": {"total_size": 64}, "weight_map": shards});
        write("model.safetensors.index.json", index.to_string().into());
    };
    write(
        "model-00001-of-00002.safetensors",
        safetensors(&[("model.embed_tokens.weight", "F32", &[3, 4], &[1; 48])]),
    );
    write(
        "model-00002-of-00002.safetensors",
        safetensors(&[("model.norm.weight", "F32", &[4], &[2; 16])]),
    );
    let shards = json!({
        "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
        "model.norm.weight": "model-00002-of-00002.safetensors",
    });
    index(shards.clone());
    for path in
        [directory.path().to_path_buf(), directory.path().join("model-00002-of-00002.safetensors")]
    {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(read(&checkpoint, "embed_tokens.weight", 0..3).unwrap(), [1; 48]);
        assert_eq!(read(&checkpoint, "norm.weight", 0..1).unwrap(), [2; 16]);
    }
    for (shards, part) in [
        (json!({"model.norm.weight": "../model.safetensors"}), "not a plain file name"),
        (json!({"model.norm.weight": "gone.safetensors"}), "gone.safetensors"),
        (
            json!({"model.layers.0.mlp.up_proj.weight": "model-00002-of-00002.safetensors"}),
            "up_proj.weight is not in",
        ),
        (json!({}), "names no shard"),
        (json!(3), "bad JSON"),
    ] {
        index(shards);
        let message = open().err().unwrap().to_string();
        assert!(message.contains(part), "{message} lacks {part}");
    }
    index(shards);
    write(
        "model-00002-of-00002.safetensors",
        safetensors(&[("model.embed_tokens.weight", "F32", &[3, 4], &[1; 48])]),
    );
    let message = open().err().unwrap().to_string();
    assert_eq!(message, "tensor embed_tokens.weight: is in the checkpoint twice");
}

#[test]
fn safetensors_of_other_dtypes_are_refused_by_name() {
    let directory = hf_directory();
    let path = directory.path().join("model.safetensors");
    fs::write(&path, safetensors(&[("model.norm.weight", "F8_E4M3", &[4], &[0; 4])])).unwrap();
    let message = Checkpoint::open(&path).err().unwrap().to_string();
    assert!(
        message.starts_with("tensor model.norm.weight: dtype \"F8_E4M3\" is not supported"),
        "{message}"
    );
}
