//! `gemma4-wgpu inspect`, the memory plan, and errors that mention it.

use std::path::Path;

use crate::support::{TinyModel, error_line, on_model, program, stdout};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn inspect(model: &Path, args: &[&str]) -> Value {
    let mut command = program(&["inspect", "--json"]);
    json(&stdout(command.arg(model).args(args)))
}

/// Fails unless the plan holds for a run.
fn plan_holds(model: &Path, args: &[&str]) {
    let memory = &inspect(model, args)["memory"];
    let run = [args, &["--json", "-n", "4", "--seed", "1", "--prompt", "hi"]].concat();
    let run = json(&stdout(&mut on_model("run", model, &run)));
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no number"));
    assert_eq!(memory["context_length"], run["context_length"], "{args:?}");
    let kv = number(&memory["kv_sliding_bytes"]) + number(&memory["kv_full_bytes"]);
    assert_eq!(kv, number(&run["kv_bytes"]), "{args:?}");
    let (planned, taken) =
        (number(&memory["weight_bytes"]) as f64, number(&run["weight_bytes"]) as f64);
    assert!(
        (planned / taken - 1.0).abs() < 0.05,
        "{args:?}: {planned} bytes of weights planned, {taken} taken"
    );
    // The peak includes the small buffers for results.
    let (planned, peak) =
        (number(&memory["total_bytes"]) as f64, number(&run["peak_device_bytes"]) as f64);
    assert!((planned / peak - 1.0).abs() < 0.05, "{args:?}: {planned} bytes planned, {peak} taken");
    assert_eq!(memory["fits"], true);
}

#[test]
fn the_plan_is_what_a_run_takes() {
    for args in [
        &["--backend", "wgpu"][..],
        &["--backend", "wgpu", "--ctx", "700", "--cache-type", "f32"],
        &["--backend", "wgpu", "--kernels", "dp4a=on", "--quantize", "int8", "--ctx", "100"],
    ] {
        plan_holds(Path::new("demo"), args);
    }
}

#[test]
fn it_tells_what_a_checkpoint_holds() {
    let model = TinyModel::new().write();
    let report = inspect(model.path(), &["--backend", "cpu", "--tensors"]);
    assert_eq!(report["architecture"], "Gemma 4");
    assert_eq!(
        (&report["layers"], &report["sliding_layers"], &report["window"]),
        (&2.into(), &1.into(), &8.into())
    );
    assert_eq!(report["chat_template"], true);
    let elements = TinyModel::new().tensors.values().map(|(_, values)| values.len()).sum::<usize>();
    assert_eq!(report["parameters"], elements);
    let kind = |name: &str| {
        let kinds = report["kinds"].as_array().unwrap();
        kinds
            .iter()
            .find(|kind| kind["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .clone()
    };
    let down = kind("mlp.down_proj.weight");
    assert_eq!(
        (&down["stored"], &down["device"], &down["tensors"]),
        (&"F32".into(), &"int4 g32".into(), &2.into())
    );
    assert_eq!(
        (&down["stored_bytes"], &down["device_bytes"]),
        (&(2 * 16 * 32 * 4).into(), &(2 * 16 * 20).into())
    );
    assert_eq!(kind("embed_tokens.weight")["device"], "int8 g32");
    assert_eq!(report["tensors"].as_array().unwrap().len(), TinyModel::new().tensors.len());

    let mut bare = TinyModel::new();
    bare.tokenizer_config.as_object_mut().unwrap().remove("chat_template");
    let bare = bare.write();
    assert_eq!(inspect(bare.path(), &["--backend", "cpu"])["chat_template"], false);
    let text = stdout(program(&["inspect", "--backend", "cpu", "--tensors"]).arg(bare.path()));
    for wanted in [
        "chat template   none",
        "layers.1.mlp.down_proj.weight",
        "[16, 32]",
        "KV, sliding",
        "fits; up to 512",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
}

#[test]
fn it_tells_of_per_layer_embeddings_and_shared_keys() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-per-layer");
    let report = inspect(&model, &["--backend", "cpu", "--tensors"]);
    assert_eq!((&report["per_layer_input"], &report["sharing_layers"]), (&16.into(), &3.into()));
    // The file has keys for layers with KV sharing, which the model does not use.
    let names: Vec<_> =
        report["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].clone()).collect();
    assert!(names.contains(&"embed_tokens_per_layer.weight".into()));
    assert!(names.contains(&"layers.3.self_attn.k_proj.weight".into()));
    assert!(!names.contains(&"layers.4.self_attn.k_proj.weight".into()));
    let text = stdout(program(&["inspect", "--backend", "cpu"]).arg(&model));
    let wanted = "7 layers (5 sliding over 6 positions, 2 full, 3 with others' keys and values), \
                  hidden size 32, 16 a layer";
    assert!(text.contains(wanted), "no {wanted:?} in {text}");
}

#[test]
fn it_tells_of_experts() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-experts");
    let report = inspect(&model, &["--backend", "cpu"]);
    let sizes = serde_json::json!({"count": 8, "top_k": 2, "intermediate_size": 16});
    assert_eq!(report["experts"], sizes);
    let router = { report["kinds"].as_array().unwrap() }
        .iter()
        .find(|kind| kind["name"] == "router.proj.weight")
        .unwrap();
    assert_eq!((&router["stored"], &router["device"]), (&"BF16".into(), &"bf16".into()));
    let text = stdout(program(&["inspect", "--backend", "cpu"]).arg(&model));
    assert!(text.contains("hidden size 32, 2 of 8 experts a token"), "{text}");
}

#[test]
fn what_does_not_fit_is_refused_with_the_plan() {
    let mut model = TinyModel::with_full_head_dim(512);
    model.config["max_position_embeddings"] = (1 << 30).into();
    let model = model.write();
    for backend in ["cpu", "wgpu"] {
        let args = ["--backend", backend, "--ctx", "1073741824"];
        let memory = &inspect(model.path(), &args)["memory"];
        assert_eq!(memory["fits"], false);
        let largest = memory["largest_context"].as_u64().unwrap();
        assert!((1000..1 << 30).contains(&largest), "{backend}: {largest}");
        let line = error_line(on_model("run", model.path(), &args).args(["--prompt", "hi"]));
        for wanted in [
            "device: the model does not fit",
            "weights",
            "KV cache",
            "1073741824 positions",
            "--ctx ",
        ] {
            assert!(line.contains(wanted), "no {wanted:?} in {line}");
        }
    }
}

#[test]
fn a_context_of_max_takes_what_there_is() {
    let model = TinyModel::new().write();
    for backend in ["cpu", "wgpu"] {
        let args = [
            "--backend",
            backend,
            "--ctx",
            "max",
            "--json",
            "-n",
            "2",
            "--seed",
            "1",
            "--prompt",
            "hi",
        ];
        assert_eq!(json(&stdout(&mut on_model("run", model.path(), &args)))["context_length"], 512);
    }
    let command = &mut on_model("run", model.path(), &["--backend", "cpu", "--ctx", "all", "hi"]);
    command.assert().code(2).stderr(predicates::str::contains("a number of tokens, or max"));
}

#[test]
fn inspect_refuses_what_run_refuses() {
    let line =
        error_line(&mut program(&["inspect", "--backend", "cpu", "/nonexistent/model.gguf"]));
    assert!(line.contains("/nonexistent/model.gguf"), "{line}");
    let mut incomplete = TinyModel::new();
    incomplete.tensors.remove("model.layers.1.mlp.down_proj.weight");
    let incomplete = incomplete.write();
    let line = error_line(program(&["inspect", "--backend", "cpu"]).arg(incomplete.path()));
    assert!(line.contains("layers.1.mlp.down_proj.weight: missing"), "{line}");
}

#[test]
fn what_is_not_used_is_named() {
    let mut model = TinyModel::new();
    for name in [
        "model.vision_tower.layers.0.w",
        "model.vision_tower.layers.1.w",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ] {
        model.tensors.insert(name.into(), (vec![2], vec![0.5; 2]));
    }
    let model = model.write();
    let text = stdout(program(&["inspect", "--backend", "cpu"]).arg(model.path()));
    assert!(text.contains("model.layers.*.self_attn.*, model.vision_tower.* 2 tensors"), "{text}");
    assert!(!text.contains("full precision"), "{text}");
    let mixed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/import/compressed_tensors_asymmetric");
    let text = stdout(program(&["inspect", "--backend", "cpu"]).arg(&mixed));
    let line = text
        .lines()
        .find(|line| line.starts_with("full precision"))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("embed_tokens.weight") && line.contains("--quantize int8"), "{line}");
    let floats = &inspect(&mixed, &["--backend", "cpu"])["float_matrices"];
    assert!(floats["token_bytes"].as_u64() > floats["int8_token_bytes"].as_u64(), "{floats}");
}

/// One line with both values, or with the existing name that is similar to the missing one.
#[test]
fn contradictions_are_named() {
    type Change = fn(&mut TinyModel);
    let cases: [(Change, &[&str]); 9] = [
        (
            |m| m.config["tie_word_embeddings"] = false.into(),
            &["lm_head.weight: missing", "tie_word_embeddings = false"],
        ),
        (
            |m| {
                let head = m.tensors["model.embed_tokens.weight"].clone();
                m.tensors.insert("lm_head.weight".into(), head);
                m.tensors
                    .insert("language_model.lm_head.weight".into(), (vec![2, 16], vec![0.5; 32]));
            },
            &["\"lm_head.weight\" [264, 16]", "\"language_model.lm_head.weight\" [2, 16]"],
        ),
        (
            |m| drop(m.tensors.insert("lm_head.weight".into(), (vec![2, 16], vec![0.5; 32]))),
            &["lm_head.weight: has shape [2, 16]", "[264, 16]"],
        ),
        (
            |m| {
                let tensors = std::mem::take(&mut m.tensors);
                let renamed = tensors
                    .into_iter()
                    .map(|(name, tensor)| (format!("base_model.model.{name}"), tensor));
                m.tensors = renamed.collect();
            },
            &[
                "embed_tokens.weight: missing",
                "nearest",
                "base_model.model.model.embed_tokens.weight",
            ],
        ),
        (
            |m| {
                drop(
                    m.tensors
                        .insert("model.layers.0.experts.down_proj".into(), (vec![2], vec![0.5; 2])),
                )
            },
            &["layers.0.experts.down_proj: is in the files", "no experts (enable_moe_block)"],
        ),
        (
            |m| {
                drop(m.tensors.insert(
                    "model.layers.1.self_attn.q_proj.bias".into(),
                    (vec![16], vec![0.5; 16]),
                ))
            },
            &["unsupported: biases", "q_proj.bias"],
        ),
        (
            |m| {
                drop(m.tensors.insert(
                    "model.embed_tokens_per_layer.weight".into(),
                    (vec![2, 2], vec![0.5; 4]),
                ))
            },
            &["embed_tokens_per_layer.weight", "[2, 2]", "hidden_size_per_layer_input"],
        ),
        (
            |m| {
                drop(m.tensors.insert(
                    "model.layers.7.mlp.up_proj.weight".into(),
                    (vec![2, 16], vec![0.5; 32]),
                ))
            },
            &["layers.7.mlp.up_proj.weight: is in the files", "the config says 2 layers"],
        ),
        (
            |m| drop(m.tensors.remove("model.layers.0.layer_scalar")),
            &["layers.0.layer_scalar: missing"],
        ),
    ];
    for (change, wanted) in cases {
        let mut model = TinyModel::new();
        change(&mut model);
        let line = error_line(program(&["inspect", "--backend", "cpu"]).arg(model.write().path()));
        assert!(wanted.iter().all(|part| line.contains(part)), "no {wanted:?} in {line}");
    }
}

/// Without a scalar in the file the factor is one. A stored V projection is used.
#[test]
fn the_files_decide() {
    let mut model = TinyModel::new();
    model.tensors.retain(|name, _| !name.ends_with("layer_scalar"));
    model.config["attention_k_eq_v"] = true.into();
    let model = model.write();
    let report = inspect(model.path(), &["--backend", "cpu", "--tensors"]);
    let names: Vec<_> =
        report["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].clone()).collect();
    assert!(names.contains(&"layers.1.self_attn.v_proj.weight".into()));
    assert!(!names.contains(&"layers.1.layer_scalar".into()));
}
