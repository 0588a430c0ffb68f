//! `gemma4-wgpu convert --to gguf`: the file is the same model.
//! tools/llama_reference/check_export.py checks that llama.cpp reads it in this way.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{TinyModel, error_line, file, on_model, stdout};
use gemma4_wgpu::{
    checkpoint::Checkpoint,
    model::{source::TensorSource, weights},
    quant::{Quantize, dequantize, native_format, pack_rows},
    text::Tokenizer,
};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn convert(model: &Path, output: &Path) -> assert_cmd::Command {
    let mut command = on_model("convert", model, &["--to", "gguf"]);
    command.arg("--output").arg(output);
    command
}

/// The logits of a few tokens, as the file's bytes.
fn logits(model: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (ids, out) = (
        file(&dir, "ids.json", "[2, 7, 3, 30, 2, 11, 9, 25, 4]"),
        dir.path().join("logits.safetensors"),
    );
    let args = ["--backend", "cpu", "--quantize", "none", "--token-ids"];
    stdout(on_model("eval", model, &args).arg(ids).arg("--logits-out").arg(&out));
    fs::read(out).unwrap()
}

/// The values of a tensor as backends hold it. Groups may differ.
fn content(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let info = checkpoint.info(name).unwrap();
    match info.shape.as_slice() {
        &[rows, cols] => {
            let bytes = pollster::block_on(checkpoint.read(name, 0..rows)).unwrap();
            let packed =
                pack_rows(info.dtype, &bytes, rows, cols, native_format(info.dtype)).unwrap();
            let mut values = vec![f32::NAN; rows * cols];
            values
                .chunks_mut(cols)
                .enumerate()
                .for_each(|(row, values)| packed.dequantize_row(row, values));
            values
        }
        _ => {
            let bytes = pollster::block_on(checkpoint.read(name, 0..1)).unwrap();
            let values = dequantize(info.dtype, &bytes).unwrap();
            let offset = if name.ends_with("norm.weight") {
                checkpoint.config().norm_weight_offset
            } else {
                0.0
            };
            values.iter().map(|value| value + offset).collect()
        }
    }
}

#[test]
fn the_demo_bit_for_bit() {
    let (demo, dir) = (path("assets/demo"), tempfile::tempdir().unwrap());
    let output = dir.path().join("demo.gguf");
    stdout(&mut convert(&demo, &output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let (from, to) = (Checkpoint::open(&demo).unwrap(), Checkpoint::open(&output).unwrap());
    assert_eq!(from.config(), to.config());
    let mut types = std::collections::BTreeSet::new();
    for tensor in weights::planned_tensors(&from, Quantize::None).unwrap() {
        assert_eq!(content(&from, &tensor.name), content(&to, &tensor.name), "{}", tensor.name);
        types.insert(to.info(&tensor.name).unwrap().dtype.to_string());
    }
    assert_eq!(Vec::from_iter(types), ["F32", "Q4_0", "Q8_0"]);

    let (text, written) = (from.text_assets().unwrap(), to.text_assets().unwrap());
    let sorted = |ids: &[u32]| std::collections::BTreeSet::from_iter(ids.to_vec());
    assert_eq!(sorted(&text.eos_ids), sorted(&written.eos_ids));
    assert_eq!(
        (text.bos_id, text.add_bos, &text.chat_template),
        (written.bos_id, written.add_bos, &written.chat_template)
    );
    assert_eq!(text.sampling, written.sampling);
    let (tokenizer, other) = (Tokenizer::new(&text).unwrap(), Tokenizer::new(&written).unwrap());
    let excerpt = fs::read_to_string(path("tests/fixtures/demo/heldout.txt")).unwrap();
    let ids = tokenizer.encode(&excerpt, true).unwrap();
    assert_eq!(ids, other.encode(&excerpt, true).unwrap());

    let tokens = |model: &Path| {
        let args =
            ["--backend", "cpu", "--temperature", "0", "-n", "48", "--json", "What is love?"];
        let output: Value =
            serde_json::from_str(&stdout(&mut on_model("run", model, &args))).unwrap();
        output["tokens"].clone()
    };
    assert!(tokens(&demo).as_array().unwrap().len() > 8);
    assert_eq!(tokens(&demo), tokens(&output));
}

/// Both architectures, all kinds of layers, and plain and quantized matrices.
/// Logits are with and without a softcap.
#[test]
fn the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "goldens/gemma3-published",
        "goldens/gemma4-31b-heads",
        "goldens/gemma4-dense-gqa",
        "goldens/gemma4-experts",
        "goldens/gemma4-k-eq-v",
        "goldens/gemma4-many-experts",
        "goldens/gemma4-odd-sizes",
        "goldens/gemma4-per-layer",
        "goldens/gemma4-published",
        "goldens/gemma4-short-window",
        "goldens/gemma4-softcap-untied",
        "goldens/gemma4-unified",
        "goldens/gemma4-unified-flat",
        "fixtures/import/compressed_tensors",
        "fixtures/import/compressed_tensors_asymmetric",
    ] {
        let (model, output) =
            (path("tests").join(name), dir.path().join(name.replace('/', "-") + ".gguf"));
        stdout(&mut convert(&model, &output));
        let (from, to) = (Checkpoint::open(&model).unwrap(), Checkpoint::open(&output).unwrap());
        assert_eq!(from.config().layers, to.config().layers, "{name}");
        assert_eq!(from.config().per_layer_input, to.config().per_layer_input, "{name}");
        assert_eq!(from.config().final_logit_softcap, to.config().final_logit_softcap, "{name}");
        for tensor in weights::planned_tensors(&from, Quantize::None).unwrap() {
            assert_eq!(
                content(&from, &tensor.name),
                content(&to, &tensor.name),
                "{name}: {}",
                tensor.name
            );
        }
        assert_eq!(logits(&model), logits(&output), "{name}");
    }
}

/// llama.cpp caps Gemma 4's logits at 30 unless the file says that there is no cap.
#[test]
fn no_cap_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("model.gguf");
    stdout(&mut convert(&path("tests/goldens/gemma4-dense-gqa"), &output));
    let bytes = fs::read(&output).unwrap();
    let file = gemma4_wgpu::checkpoint::gguf::container::Gguf::parse(&bytes).unwrap();
    assert_eq!(file.float("gemma4.final_logit_softcapping"), Ok(Some(0.0)));
    assert_eq!(file.text("general.architecture"), Ok(Some("gemma4")));
    assert_eq!(file.tensors()[0].name, "rope_freqs.weight");
    assert!(file.tensors().iter().all(|tensor| tensor.range.start.is_multiple_of(32)));
}

#[test]
fn what_gguf_cannot_hold_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("model.gguf");
    for (name, wanted) in [
        ("goldens/gemma3-linear-rope", vec!["attention scale", "llama.cpp would take"]),
        ("goldens/gemma4-double-wide", vec!["75 rows of per-layer embeddings for 70 tokens"]),
        ("fixtures/import/mlx", vec!["embed_tokens.weight", "int8 g32+offset"]),
        ("fixtures/import/torchao", vec!["v_proj.weight", "int8 g32+offset"]),
    ] {
        let line = error_line(&mut convert(&path("tests").join(name), &output));
        assert!(wanted.iter().all(|part| line.contains(part)), "{line}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    // llama.cpp derives the layer whose keys are shared from its position alone.
    let other = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(path("tests/goldens/gemma4-per-layer").join(name), other.path().join(name))
            .unwrap();
    }
    let config = fs::read(other.path().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["text_config"]["layer_types"].as_array_mut().unwrap().swap(2, 3);
    fs::write(other.path().join("config.json"), config.to_string()).unwrap();
    let line = error_line(&mut convert(other.path(), &output));
    assert!(line.contains("layer 4 uses the keys of layer 3"), "{line}");
    // Tokens are bytes without marks for spaces, so this is no tokenizer of Gemma.
    let model = TinyModel::new().write();
    let line = error_line(&mut convert(model.path(), &output));
    assert!(line.contains("tokenizer.json is neither byte-level BPE"), "{line}");
    let line = error_line(&mut convert(&path("tests/goldens_gguf/gemma4"), &output));
    assert!(line.contains("holds GGUF"), "{line}");
    fs::write(&output, "mine").unwrap();
    let line = error_line(&mut convert(&path("assets/demo"), &output));
    assert!(line.contains("exists already"), "{line}");
    assert_eq!(fs::read(&output).unwrap(), b"mine");
}
