//! `gemma4-wgpu convert`: it writes the same model that it read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{TinyModel, error_line, file, on_model, program, stdout};
use gemma4_wgpu::{
    checkpoint::Checkpoint,
    model::{config::ModelConfig, source::TensorSource},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
}

fn convert(model: &Path, output: &Path) -> assert_cmd::Command {
    let mut command = on_model("convert", model, &["--to", "mlx"]);
    command.arg("--output").arg(output);
    command
}

fn logits(model: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (ids, out) =
        (file(&dir, "ids.json", "[1, 7, 3, 30, 2]"), dir.path().join("logits.safetensors"));
    stdout(
        on_model("eval", model, &["--backend", "cpu", "--token-ids"])
            .arg(ids)
            .arg("--logits-out")
            .arg(&out),
    );
    fs::read(out).unwrap()
}

fn all_bytes(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let rows = checkpoint.info(name).unwrap().shape[0];
    pollster::block_on(checkpoint.read(name, 0..rows)).unwrap().to_vec()
}

/// bf16 scales do not change, so the values are identical.
#[test]
fn mlx_holds_the_same_model() {
    for name in ["compressed_tensors", "compressed_tensors_asymmetric", "torchao"] {
        let parent = tempfile::tempdir().unwrap();
        let output = parent.path().join("mlx");
        stdout(&mut convert(&fixture(name), &output));
        let (from, to) =
            (Checkpoint::open(fixture(name)).unwrap(), Checkpoint::open(&output).unwrap());
        assert!(to.description().ends_with("by MLX"), "{}", to.description());
        for matrix in ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.gate_proj"] {
            let matrix = format!("layers.0.{matrix}.weight");
            assert_eq!(from.info(&matrix), to.info(&matrix), "{name}: {matrix}");
            let has_zero_points = from.info(&matrix).unwrap().dtype.to_string().ends_with("offset");
            // The product of a zero point and a scale is rounded to bf16.
            assert_eq!(
                all_bytes(&from, &matrix) == all_bytes(&to, &matrix),
                !has_zero_points,
                "{name}: {matrix}"
            );
        }
        assert_eq!(from.config(), to.config(), "{name}");
        assert_eq!(
            all_bytes(&from, "embed_tokens.weight"),
            all_bytes(&to, "embed_tokens.weight"),
            "{name}"
        );
        if name == "compressed_tensors" {
            assert_eq!(logits(&fixture(name)), logits(&output));
        }
    }
}

/// mlx-lm knows neither `per_layer_config` nor the vocabulary in `text_config`, and has other
/// defaults.
/// So the written config has every value under mlx-lm's keys. Here it must mean the same.
#[test]
fn configs_are_in_the_words_of_mlx_lm() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    for golden in fs::read_dir(goldens).unwrap().map(|entry| entry.unwrap().path()) {
        let parent = tempfile::tempdir().unwrap();
        let output = parent.path().join("mlx");
        stdout(&mut convert(&golden, &output));
        let from = Checkpoint::open(&golden).unwrap();
        let text = fs::read_to_string(output.join("config.json")).unwrap();
        assert_eq!(*from.config(), ModelConfig::from_hf_json(&text).unwrap(), "{golden:?}");
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["vocab_size"], from.config().vocab_size, "{golden:?}");
        let inner = config.get("text_config").unwrap_or(&config);
        assert!(inner.get("per_layer_config").is_none(), "{golden:?}");
        let is_gemma4 = from.config().layer_scalar;
        let keys: &[&str] = match is_gemma4 {
            true => &["global_head_dim", "num_global_key_value_heads", "num_kv_shared_layers"],
            false => &["sliding_window_pattern", "rope_theta", "rope_local_base_freq"],
        };
        for key in keys {
            assert!(inner[key].is_number(), "{golden:?}: {key}");
        }
    }
}

/// MLX has gate and up apart, and all experts in tensors of three dimensions.
#[test]
fn experts_are_taken_apart_for_mlx() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-experts");
    let parent = tempfile::tempdir().unwrap();
    let output = parent.path().join("mlx");
    stdout(&mut convert(&golden, &output));
    let bytes = fs::read(output.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of_layer = |name: &str| {
        let name = format!("language_model.model.layers.2.experts.switch_glu.{name}.weight");
        tensors.tensor(&name).unwrap().shape().to_vec()
    };
    assert_eq!(of_layer("up_proj"), [8, 16, 32]);
    assert_eq!(of_layer("down_proj"), [8, 32, 16]);
    let (from, to) = (Checkpoint::open(&golden).unwrap(), Checkpoint::open(&output).unwrap());
    for layer in 0..4 {
        for name in ["experts.gate_up_proj", "experts.down_proj", "router.proj.weight"] {
            let name = format!("layers.{layer}.{name}");
            assert_eq!(all_bytes(&from, &name), all_bytes(&to, &name), "{name}");
        }
    }
}

#[test]
fn the_files_are_as_mlx_lm_has_them() {
    let parent = tempfile::tempdir().unwrap();
    let output = parent.path().join("mlx");
    stdout(&mut convert(&fixture("torchao"), &output));
    let config = fs::read_to_string(output.join("config.json")).unwrap();
    ModelConfig::from_hf_json(&config).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let quantization = &config["quantization"];
    assert_eq!((&quantization["group_size"], &quantization["bits"]), (&json!(32), &json!(4)));
    assert_eq!(
        quantization["model.embed_tokens"],
        json!({"group_size": 64, "bits": 8, "mode": "affine"})
    );
    assert_eq!(&config["quantization_config"], quantization);
    let bytes = fs::read(output.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| {
        let tensor = tensors.tensor(name).unwrap();
        (tensor.dtype(), tensor.shape().to_vec())
    };
    assert_eq!(shape("model.layers.0.mlp.up_proj.weight"), (Dtype::U32, vec![128, 8]));
    assert_eq!(shape("model.embed_tokens.weight"), (Dtype::U32, vec![32, 16]));
    assert_eq!(shape("model.layers.0.mlp.up_proj.scales"), (Dtype::BF16, vec![128, 2]));
    assert_eq!(shape("lm_head.biases"), (Dtype::BF16, vec![32, 2]));
    assert_eq!(shape("model.norm.weight"), (Dtype::BF16, vec![64]));
}

#[test]
fn what_cannot_be_converted_is_named_and_leaves_nothing() {
    let (model, parent) = (TinyModel::new().write(), tempfile::tempdir().unwrap());
    let (packed, output) = (parent.path().join("packed"), parent.path().join("mlx"));
    stdout(on_model("quantize", model.path(), &["--output"]).arg(&packed));
    let line = error_line(&mut convert(&packed, &output));
    assert!(line.contains("embed_tokens.weight") && line.contains("16 columns"), "{line}");
    assert!(!output.exists());
    let line = error_line(&mut convert(&fixture("torchao"), &packed));
    assert!(line.contains("not empty"), "{line}");
    let line = error_line(&mut convert(&model.path().join("config.json"), &output));
    assert!(line.contains("not a directory"), "{line}");
    program(&["convert", "--model", "x", "--output", "y", "--to", "onnx"]).assert().code(2);
}

/// The config says tied, or nothing, but the files have a head.
/// The head is used if it differs from the embedding, also in all conversions.
#[test]
fn a_head_of_its_own_goes_through_everything() {
    let mut model = TinyModel::new();
    model.config.as_object_mut().unwrap().remove("tie_word_embeddings");
    let tied = model.write();
    let (shape, embedding) = model.tensors["model.embed_tokens.weight"].clone();
    model.tensors.insert("lm_head.weight".into(), (shape.clone(), embedding.clone()));
    let equal = model.write();
    let head = embedding.iter().rev().copied().collect();
    model.tensors.insert("lm_head.weight".into(), (shape, head));
    let own = model.write();
    let is_tied = |dir: &Path| Checkpoint::open(dir).unwrap().config().tie_word_embeddings;
    assert!(is_tied(equal.path()) && !is_tied(own.path()));
    let expected = logits(own.path());
    assert_eq!(logits(equal.path()), logits(tied.path()));
    assert_ne!(expected, logits(tied.path()));

    let parent = tempfile::tempdir().unwrap();
    let (mlx, packed) = (parent.path().join("mlx"), parent.path().join("packed"));
    stdout(&mut convert(own.path(), &mlx));
    assert_eq!(logits(&mlx), expected);
    stdout(on_model("quantize", own.path(), &["--output"]).arg(&packed));
    assert_eq!(logits(&packed), expected);
    for dir in [&mlx, &packed] {
        let config: Value =
            serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["tie_word_embeddings"], false);
    }
}

/// transformers writes `per_layer_config`, which mlx-lm does not read.
#[test]
fn mlx_gets_the_keys_that_it_knows() {
    let goldens = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let parent = tempfile::tempdir().unwrap();
    let converted = |name: &str| {
        let output = parent.path().join(name);
        stdout(&mut convert(&goldens.join(name), &output));
        let config: Value =
            serde_json::from_slice(&fs::read(output.join("config.json")).unwrap()).unwrap();
        config
    };
    let config = converted("gemma4-k-eq-v");
    assert_eq!(config.get("per_layer_config"), None);
    assert_eq!(
        (&config["global_head_dim"], &config["num_global_key_value_heads"]),
        (&json!(16), &json!(1))
    );
    let config = converted("gemma3-published");
    assert_eq!(config["vocab_size"], 75);
    assert_eq!(
        config["text_config"]["rope_scaling"],
        json!({"rope_type": "linear", "factor": 8.0})
    );
    let config = converted("gemma3-linear-rope");
    assert_eq!(
        (&config["sliding_window_pattern"], config.get("rope_parameters")),
        (&json!(3), None)
    );
    // Full layers at uneven distances.
    let (other, output) = (tempfile::tempdir().unwrap(), parent.path().join("none"));
    let from = goldens.join("gemma3-linear-rope");
    fs::copy(from.join("model.safetensors"), other.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    config["layer_types"][1] = "full_attention".into();
    fs::write(other.path().join("config.json"), config.to_string()).unwrap();
    let line = error_line(&mut convert(other.path(), &output));
    assert!(line.contains("mlx-lm's config cannot describe full layers"), "{line}");
    assert!(!output.exists());
}
