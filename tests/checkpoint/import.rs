//! Checkpoints of MLX, compressed-tensors and torchao against their producers' own dequantization:
//! see fixtures/import/generate.py.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::safetensors_with;
use gemma4_wgpu::{
    backend::{Backend, SequenceStep, StepInput, StepOutput},
    checkpoint::Checkpoint,
    cpu::CpuBackend,
    model::{
        source::TensorSource,
        weights::{LoadOptions, plan},
    },
    quant::{Dtype, PackFormat, Quantize, pack_rows},
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

/// A matrix of the checkpoint as the kernels see it, read in slices that do not fit anything.
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

/// Every matrix is what its producer makes of it, up to an f16's rounding of scale and offset, and
/// the model runs.
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
            // An offset of up to 15 steps, and a product as large, each off by 2^-12 of itself at
            // most.
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
            // Its biases are all −8 scales.
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

/// Groups of several widths, whose targets are a class, patterns and a name that a pattern fits
/// too.
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
            // A scale a row.
            ("embed_tokens.weight", "int8 g64"),
            ("layers.0.self_attn.o_proj.weight", "int4 g32"),
            ("layers.0.self_attn.v_proj.weight", "int8 g32+offset"),
            ("layers.0.self_attn.q_proj.weight", "int4 g32+offset"),
            ("lm_head.weight", "int4 g32+offset"),
        ],
    );
    // The config says tied; the file has an lm_head of its own.
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

/// A copy of a fixture with config.json and the weights' header changed; the error that opening it
/// gives.
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

#[test]
fn unknown_schemes_are_named() {
    let method = |method: &'static str| {
        move |config: &mut Value| config["quantization_config"] = json!({ "quant_method": method })
    };
    assert_names(
        &spoiled("compressed_tensors", method("bitsandbytes"), same),
        &["unsupported", "bitsandbytes"],
    );
    assert_names(
        &spoiled("compressed_tensors", method("torchao"), same),
        &["unsupported", "torchao", "metadata"],
    );
    let ct = |change: fn(&mut Value)| {
        spoiled("compressed_tensors", |c| change(&mut c["quantization_config"]), same)
    };
    assert_names(
        &ct(|q| q["format"] = "float-quantized".into()),
        &["unsupported", "float-quantized"],
    );
    assert_names(
        &ct(|q| q["kv_cache_scheme"] = json!({"num_bits": 8})),
        &["unsupported", "kv_cache_scheme"],
    );
    fn weights(q: &mut Value, key: &str, value: Value) {
        q["config_groups"]["group_0"]["weights"][key] = value;
    }
    assert_names(&ct(|q| weights(q, "num_bits", 3.into())), &["unsupported", "3 bits"]);
    assert_names(&ct(|q| weights(q, "type", "float".into())), &["unsupported", "float"]);
    assert_names(
        &ct(|q| q["config_groups"]["group_0"]["input_activations"] = json!({"num_bits": 8})),
        &["unsupported", "activations"],
    );
    let mlx = |change: fn(&mut Value)| spoiled("mlx", |c| change(&mut c["quantization"]), same);
    assert_names(&mlx(|q| q["mode"] = "mxfp4".into()), &["mxfp4", "only affine"]);
    let mode = |q: &mut Value| {
        q["language_model.model.layers.0.self_attn.q_proj"]["mode"] = "nvfp4".into()
    };
    assert_names(&mlx(mode), &["layers.0.self_attn.q_proj.weight", "nvfp4"]);
    for bits in [2, 3, 5, 6] {
        let change = |c: &mut Value| {
            c["quantization"]["language_model.model.layers.0.self_attn.q_proj"]["bits"] =
                bits.into()
        };
        assert_names(
            &spoiled("mlx", change, same),
            &["self_attn.q_proj.weight", &format!("{bits} bits"), "4 and 8"],
        );
    }
    assert_names(&mlx(|q| q["bits"] = 6.into()), &["6 bits", "4 and 8"]);
    assert_names(&mlx(|q| q["bits"] = json!("four")), &["bits is not"]);
}

/// MLX takes 4 bits in groups of 64 where a module's entry says nothing, whatever the others have.
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

/// What a file of quantized matrices leaves in 16 bits stays so unless something else is asked for.
#[test]
fn floats_beside_quantized_matrices_stay_as_they_are() {
    let format = |checkpoint: &Checkpoint, quantize| {
        let planned = plan(checkpoint, quantize).unwrap();
        let embedding = planned.iter().find(|tensor| tensor.name == "embed_tokens.weight").unwrap();
        embedding.format.unwrap().to_string()
    };
    let checkpoint = Checkpoint::open(fixture("compressed_tensors_asymmetric")).unwrap();
    assert_eq!(format(&checkpoint, Quantize::default()), "bf16");
    assert_eq!(format(&checkpoint, Quantize::Int8), "int8 g32");
    assert_eq!(format(&checkpoint, Quantize::Int4), "int8 g32");
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-dense-gqa");
    let plain = Checkpoint::open(plain).unwrap();
    assert_eq!(plan(&plain, Quantize::Auto).unwrap(), plan(&plain, Quantize::Int4).unwrap());
}

fn assert_names(error: &str, wanted: &[&str]) {
    assert!(
        wanted.iter().all(|part| error.contains(part)) && !error.contains('\n'),
        "{wanted:?} in {error}"
    );
}

#[test]
fn groups_that_do_not_fit_are_named() {
    let group =
        |group: u32| move |config: &mut Value| config["quantization"]["group_size"] = group.into();
    assert_names(&spoiled("mlx", group(48), same), &["tensor", "groups of 48"]);
    assert_names(&spoiled("mlx", group(0), same), &["tensor", "groups of 0"]);
    let scale = "model.language_model.layers.0.mlp.down_proj.weight_scale";
    let error =
        spoiled("compressed_tensors", same, |header| header[scale]["shape"] = json!([128, 2]));
    assert_names(&error, &["layers.0.mlp.down_proj.weight", "[128, 2]"]);
    let torchao =
        |change: fn(&mut Value)| spoiled("torchao", same, |header| describe(header, change));
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([1, 48])),
        &["q_proj", "groups of 48"],
    );
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([1, 0])),
        &["q_proj", "groups of 0"],
    );
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([32, 32])),
        &["q_proj", "[32,32]"],
    );
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([1, 64])),
        &["q_proj", "shape"],
    );
}

/// Changes what torchao's metadata say of q_proj.
fn describe(header: &mut Value, change: impl Fn(&mut Value)) {
    let text = &mut header["__metadata__"]["layers.0.self_attn.q_proj.weight"];
    let mut value: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    change(&mut value);
    *text = value.to_string().into();
}

#[test]
fn torchao_that_is_unknown_or_broken_is_named() {
    let torchao =
        |change: fn(&mut Value)| spoiled("torchao", same, |header| describe(header, change));
    assert_names(
        &torchao(|data| data["_type"] = "Float8Tensor".into()),
        &["unsupported", "Float8Tensor", "q_proj"],
    );
    assert_names(
        &torchao(|data| data["_type"] = Value::Null),
        &["unsupported", "without a type", "q_proj"],
    );
    let metadata = |key: &'static str, value: &'static str| {
        spoiled("torchao", same, |header| header["__metadata__"][key] = value.into())
    };
    assert_names(&metadata("tensor_names", "[1, 2"), &["model.safetensors", "bad JSON"]);
    assert_names(&metadata("layers.0.self_attn.q_proj.weight", "{"), &["torchao", "bad JSON"]);
    let intx = |change: fn(&mut Value)| {
        spoiled("torchao", same, |header| {
            let text = &mut header["__metadata__"]["layers.0.self_attn.v_proj.weight"];
            let mut value: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
            change(&mut value);
            *text = value.to_string().into();
        })
    };
    assert_names(
        &intx(|data| data["_data"]["target_dtype"]["_data"] = "int16".into()),
        &["v_proj", "int16"],
    );
    assert_names(
        &intx(|data| data["_data"]["activation_quantization"] = "int8_asym_per_token".into()),
        &["v_proj", "activations"],
    );
    let error = spoiled("torchao", same, |header| {
        rename(
            header,
            "layers.0.self_attn.q_proj._weight_scale",
            "layers.0.self_attn.q_proj._weight_scales",
        );
    });
    assert_names(&error, &["q_proj", "_weight_scale is missing"]);
}

#[test]
fn parts_that_are_missing_or_of_another_type_are_named() {
    let module = "language_model.model.layers.0.mlp.gate_proj";
    let error = spoiled("mlx", same, |h| {
        rename(h, &format!("{module}.biases"), &format!("{module}.offsets"))
    });
    assert_names(&error, &["gate_proj.weight", "biases is missing"]);
    let error = spoiled("mlx", same, |h| h[format!("{module}.scales")]["dtype"] = "I16".into());
    assert_names(&error, &["gate_proj.weight", "scales", "I16"]);
    let module = "model.language_model.layers.0.mlp.gate_proj";
    let error = spoiled("compressed_tensors", same, |h| {
        rename(h, &format!("{module}.weight_shape"), &format!("{module}.weight_g_idx"));
    });
    assert_names(&error, &["gate_proj.weight", "weight_g_idx"]);
    let error = spoiled("compressed_tensors_asymmetric", same, |h| {
        h[format!("{module}.weight_zero_point")]["shape"] = json!([1, 32]);
    });
    assert_names(&error, &["gate_proj.weight", "weight_zero_point", "[1, 32]"]);
    // More than the file holds.
    let packed = format!("{module}.weight_packed");
    let error = spoiled("compressed_tensors", same, |h| {
        h[&packed]["data_offsets"] = json!([0, 1u64 << 40])
    });
    assert_names(&error, &["gate_proj", "past the end"]);
}

#[test]
fn scales_that_are_not_finite_are_named_when_read() {
    let dir = copy("compressed_tensors", same, same);
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (header, parsed) = SafeTensors::read_metadata(&bytes).unwrap();
    let name = "model.language_model.layers.0.mlp.gate_proj.weight_scale";
    let (start, _) = parsed.info(name).unwrap().data_offsets;
    let at = 8 + header + start;
    bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let name = "layers.0.mlp.gate_proj.weight";
    let error = wait(checkpoint.read(name, 0..1)).unwrap_err().to_string();
    assert_names(&error, &[name, "row 0", "the scale is NaN"]);
    assert!(wait(checkpoint.read(name, 1..2)).is_ok());
    let format = PackFormat::INT4;
    assert_eq!(checkpoint.info(name).unwrap().dtype, Dtype::Packed(format));
}

const FIXTURES: [&str; 5] = [
    "mlx",
    "compressed_tensors",
    "compressed_tensors_asymmetric",
    "compressed_tensors_mixed",
    "torchao",
];

/// Opens the files and reads every matrix: errors are fine, panics are not.
fn exercise(config: &[u8], weights: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    let Ok(checkpoint) = Checkpoint::open(dir.path()) else { return };
    for name in [
        "embed_tokens",
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.v_proj",
        "layers.0.mlp.down_proj",
    ] {
        let name = format!("{name}.weight");
        let Some(info) = checkpoint.info(&name) else { continue };
        let rows = info.shape.first().copied().unwrap_or(1);
        if let (Ok(bytes), &[rows, cols]) =
            (wait(checkpoint.read(&name, 0..rows)), info.shape.as_slice())
            && let Dtype::Packed(format) = info.dtype
        {
            // What was read is whole.
            pack_rows(info.dtype, &bytes, rows, cols, format).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_imports(
        fixture_index in 0usize..4,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        in_config in any::<bool>(),
    ) {
        let read = |file: &str| fs::read(fixture(FIXTURES[fixture_index]).join(file)).unwrap();
        let (mut config, mut weights) = (read("config.json"), read("model.safetensors"));
        let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        for (index, byte, digit) in edits {
            // Digits make other numbers, anything else other names and mostly broken JSON.
            let value = if digit { b'0' + byte % 10 } else { byte };
            let place = match in_config {
                true => { let at = index.index(config.len()); &mut config[at] }
                false => { let at = 8 + index.index(header - 8); &mut weights[at] }
            };
            if !digit || place.is_ascii_digit() {
                *place = value;
            }
        }
        exercise(&config, &weights);
    }
}
