//! Checkpoints of MLX, compressed-tensors and torchao against their producers' own dequantization.
//! fixtures/import/generate.py made them.

use crate::support::safetensors_with;
use gemma4_wgpu::{
    backend::{Backend, SequenceStep, StepInput, StepOutput},
    checkpoint::Checkpoint,
    cpu::CpuBackend,
    model::{
        source::TensorSource,
        weights::{LoadOptions, planned_tensors},
    },
    quant::{Dtype, PackFormat, Quantize, pack_rows},
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

mod mutated;
mod refusals;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

/// A matrix of the checkpoint as kernels read it, in slices that align with nothing.
fn matrix(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let info = checkpoint.info(name).unwrap_or_else(|| panic!("no {name}"));
    let (rows, cols) = (info.shape[0], info.shape[1]);
    let Dtype::Packed(format) = info.dtype else { panic!("{name} is {}", info.dtype) };
    let mut values = Vec::new();
    for start in (0..rows).step_by(7) {
        let end = (start + 7).min(rows);
        let bytes = wait(checkpoint.read(name, start..end)).unwrap();
        let packed = pack_rows(info.dtype, &bytes, end - start, cols, format).unwrap();
        for row in 0..end - start {
            let mut out = vec![f32::NAN; cols];
            packed.dequantize_row(row, &mut out);
            values.extend(out);
        }
    }
    values
}

fn assert_names(error: &str, wanted: &[&str]) {
    assert!(
        wanted.iter().all(|part| error.contains(part)) && !error.contains('\n'),
        "{wanted:?} in {error}"
    );
}

/// Every matrix equals its producer's result, apart from f16 rounding of scale and offset.
/// The model runs.
fn equals_its_producer(name: &str, formats: &[(&str, &str)]) -> Checkpoint {
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let file = fs::read(fixture(name).join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    assert!(expected.len() >= 6);
    for (tensor, view) in expected.tensors() {
        let expected: Vec<f32> =
            view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let found = matrix(&checkpoint, &tensor);
        assert_eq!(found.len(), expected.len(), "{name}: {tensor}");
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.05, "{name}: {tensor} is almost zero");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // An offset of up to 15 steps and an equally large product. Each has an error of at
            // most 2^-12.
            let bound = largest * 2.0 / 2048.0;
            assert!(
                (found - expected).abs() <= bound,
                "{name}: {tensor}[{i}] is {found}, not {expected}"
            );
        }
    }
    for (tensor, format) in formats {
        let info = checkpoint.info(tensor).unwrap();
        assert_eq!(info.dtype.to_string(), *format, "{name}: {tensor}");
    }
    let options = LoadOptions { context_length: 16, ..LoadOptions::default() };
    let mut backend = wait(CpuBackend::load(&checkpoint, &options, &mut |_| ())).unwrap();
    let sequence = backend.open_sequence().unwrap();
    let tokens = StepInput::Tokens(&[1, 2, 3]);
    let ticket = backend
        .submit(&[SequenceStep { sequence, input: tokens, output: StepOutput::Greedy }])
        .unwrap();
    assert_eq!(wait(backend.read(ticket)).unwrap().len(), 1);
    checkpoint
}

#[test]
fn mlx_with_mixed_settings() {
    equals_its_producer(
        "mlx",
        &[
            ("embed_tokens.weight", "int8 g32+offset"),
            ("layers.0.self_attn.q_proj.weight", "int4 g64+offset"),
            // Its biases are all −8 times the scale.
            ("layers.0.mlp.up_proj.weight", "int4 g32"),
            ("layers.0.mlp.down_proj.weight", "int8 g128+offset"),
        ],
    );
}

#[test]
fn compressed_tensors_of_both_kinds() {
    equals_its_producer("compressed_tensors", &[("layers.0.mlp.down_proj.weight", "int4 g32")]);
    equals_its_producer(
        "compressed_tensors_asymmetric",
        &[("layers.0.mlp.down_proj.weight", "int4 g64+offset"), ("embed_tokens.weight", "BF16")],
    );
}

/// Groups of several widths.
/// Their targets are a class, patterns, and a name that a pattern matches too.
#[test]
fn compressed_tensors_of_several_widths() {
    equals_its_producer(
        "compressed_tensors_mixed",
        &[
            ("layers.0.self_attn.q_proj.weight", "int4 g32"),
            ("layers.0.self_attn.k_proj.weight", "int8 g32"),
            ("layers.0.self_attn.v_proj.weight", "int4 g32"),
            ("layers.0.mlp.down_proj.weight", "int8 g32"),
        ],
    );
    let targets = |targets: Value| {
        let change = move |c: &mut Value| {
            c["quantization_config"]["config_groups"]["group_1"]["targets"] = targets.clone();
        };
        spoiled("compressed_tensors_mixed", change, same)
    };
    assert_names(&targets(json!(["re:(?<=k)_proj"])), &["unsupported", "(?<=k)_proj"]);
    assert_names(&targets(json!([4])), &["targets", "not names"]);
    let nobody = |c: &mut Value| {
        c["quantization_config"]["config_groups"]["group_0"]["targets"] = json!(["Conv2d"])
    };
    assert_names(
        &spoiled("compressed_tensors_mixed", nobody, same),
        &["tensor", "no group of config_groups"],
    );
}

#[test]
fn torchao_as_executorch_writes_it() {
    let checkpoint = equals_its_producer(
        "torchao",
        &[
            // One scale for each row.
            ("embed_tokens.weight", "int8 g64"),
            ("layers.0.self_attn.o_proj.weight", "int4 g32"),
            ("layers.0.self_attn.v_proj.weight", "int8 g32+offset"),
            ("layers.0.self_attn.q_proj.weight", "int4 g32+offset"),
            ("lm_head.weight", "int4 g32+offset"),
        ],
    );
    // The config says tied, but the file has its own lm_head.
    assert!(!checkpoint.config().tie_word_embeddings);
}

#[test]
fn symmetric_scales_of_bf16_lose_nothing() {
    let checkpoint = Checkpoint::open(fixture("compressed_tensors")).unwrap();
    let file = fs::read(fixture("compressed_tensors").join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let name = "layers.0.mlp.gate_proj.weight";
    let expected = expected.tensor(name).unwrap().data().to_vec();
    let found: Vec<u8> =
        matrix(&checkpoint, name).iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(found, expected);
}

/// Copies a fixture with changes of config.json and the header of the weights.
/// Returns the error of opening it.
fn spoiled(name: &str, config: impl Fn(&mut Value), header: impl Fn(&mut Value)) -> String {
    let dir = copy(name, config, header);
    let error = Checkpoint::open(dir.path()).err().unwrap_or_else(|| panic!("{name} opened"));
    error.to_string()
}

fn copy(name: &str, config: impl Fn(&mut Value), header: impl Fn(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let read = |file: &str| fs::read(fixture(name).join(file)).unwrap();
    let mut value: Value = serde_json::from_slice(&read("config.json")).unwrap();
    config(&mut value);
    fs::write(dir.path().join("config.json"), value.to_string()).unwrap();
    let bytes = read("model.safetensors");
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut value: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header(&mut value);
    write(&dir.path().join("model.safetensors"), &value, &bytes[8 + length..]);
    dir
}

fn write(path: &Path, header: &Value, data: &[u8]) {
    fs::write(path, safetensors_with(&header.to_string(), data)).unwrap();
}

fn rename(header: &mut Value, from: &str, to: &str) {
    let entries = header.as_object_mut().unwrap();
    let entry = entries.remove(from).unwrap_or_else(|| panic!("no {from}"));
    entries.insert(to.into(), entry);
}

fn same(_: &mut Value) {}

/// MLX uses 4 bits in groups of 64 if a module's entry does not say, whatever other modules have.
#[test]
fn mlx_modules_without_a_group_size_have_the_usual_one() {
    let module = "language_model.model.layers.0.self_attn.q_proj";
    let name = "layers.0.self_attn.q_proj.weight";
    let whole = Checkpoint::open(fixture("mlx")).unwrap();
    for entry in
        [json!({}), json!({"group_size": null, "bits": 4}), json!({"bits": null, "mode": "affine"})]
    {
        let dir = copy("mlx", |c| c["quantization"][module] = entry.clone(), same);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.info(name), whole.info(name));
        assert_eq!(matrix(&checkpoint, name), matrix(&whole, name));
    }
    let module = "language_model.model.layers.0.mlp.down_proj";
    let error = spoiled("mlx", |c| c["quantization"][module] = json!({"bits": 8}), same);
    assert_names(&error, &["mlp.down_proj.weight", "scales", "groups of 64"]);
}

/// 16-bit values in a file of quantized matrices stay as they are unless an option says otherwise.
#[test]
fn floats_beside_quantized_matrices_stay_as_they_are() {
    let format = |checkpoint: &Checkpoint, quantize| {
        let planned = planned_tensors(checkpoint, quantize).unwrap();
        let embedding = planned.iter().find(|tensor| tensor.name == "embed_tokens.weight").unwrap();
        embedding.format.unwrap().to_string()
    };
    let checkpoint = Checkpoint::open(fixture("compressed_tensors_asymmetric")).unwrap();
    assert_eq!(format(&checkpoint, Quantize::default()), "bf16");
    assert_eq!(format(&checkpoint, Quantize::Int8), "int8 g32");
    assert_eq!(format(&checkpoint, Quantize::Int4), "int8 g32");
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-dense-gqa");
    let plain = Checkpoint::open(plain).unwrap();
    assert_eq!(
        planned_tensors(&plain, Quantize::Auto).unwrap(),
        planned_tensors(&plain, Quantize::Int4).unwrap()
    );
}
