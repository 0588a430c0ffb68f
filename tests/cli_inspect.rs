//! `gemma4-wgpu inspect`, the memory plan, and refusals that tell it.

mod cli_support;

use std::path::Path;

use cli_support::{TinyModel, error_line, on_model, program, stdout};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn inspect(model: &Path, args: &[&str]) -> Value {
    let mut command = program(&["inspect", "--json"]);
    json(&stdout(command.arg(model).args(args)))
}

/// Plans what a run then says it took.
fn plan_holds(model: &Path, args: &[&str]) {
    let memory = &inspect(model, args)["memory"];
    let run = [args, &["--json", "-n", "4", "--seed", "1", "--prompt", "hi"]].concat();
    let run = json(&stdout(&mut on_model("run", model, &run)));
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no number"));
    assert_eq!(memory["context_length"], run["context_length"], "{args:?}");
    let kv = number(&memory["kv_sliding_bytes"]) + number(&memory["kv_full_bytes"]);
    assert_eq!(kv, number(&run["kv_bytes"]), "{args:?}");
    let (planned, taken) = (number(&memory["weight_bytes"]) as f64, number(&run["weight_bytes"]) as f64);
    assert!((planned / taken - 1.0).abs() < 0.05, "{args:?}: {planned} bytes of weights planned, {taken} taken");
    // What was there at once includes the small buffers that results come back in.
    let (planned, peak) = (number(&memory["total_bytes"]) as f64, number(&run["peak_device_bytes"]) as f64);
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
    assert_eq!((&report["layers"], &report["sliding_layers"], &report["window"]), (&2.into(), &1.into(), &8.into()));
    assert_eq!(report["chat_template"], true);
    let elements = TinyModel::new().tensors.values().map(|(_, values)| values.len()).sum::<usize>();
    assert_eq!(report["parameters"], elements);
    let kind = |name: &str| {
        let kinds = report["kinds"].as_array().unwrap();
        kinds.iter().find(|kind| kind["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let down = kind("mlp.down_proj.weight");
    assert_eq!((&down["stored"], &down["device"], &down["tensors"]), (&"F32".into(), &"int4 g32".into(), &2.into()));
    assert_eq!((&down["stored_bytes"], &down["device_bytes"]), (&(2 * 16 * 32 * 4).into(), &(2 * 16 * 20).into()));
    assert_eq!(kind("embed_tokens.weight")["device"], "int8 g32");
    assert_eq!(report["tensors"].as_array().unwrap().len(), TinyModel::new().tensors.len());

    let mut bare = TinyModel::new();
    bare.tokenizer_config.as_object_mut().unwrap().remove("chat_template");
    let bare = bare.write();
    assert_eq!(inspect(bare.path(), &["--backend", "cpu"])["chat_template"], false);
    let text = stdout(program(&["inspect", "--backend", "cpu", "--tensors"]).arg(bare.path()));
    for wanted in
        ["chat template   none", "layers.1.mlp.down_proj.weight", "[16, 32]", "KV, sliding", "fits; up to 512"]
    {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
}

#[test]
fn it_tells_of_per_layer_embeddings_and_shared_keys() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-per-layer");
    let report = inspect(&model, &["--backend", "cpu", "--tensors"]);
    assert_eq!((&report["per_layer_input"], &report["sharing_layers"]), (&16.into(), &3.into()));
    // The file has keys of the layers that use others'; the model does not.
    let names: Vec<_> = report["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].clone()).collect();
    assert!(names.contains(&"embed_tokens_per_layer.weight".into()));
    assert!(names.contains(&"layers.3.self_attn.k_proj.weight".into()));
    assert!(!names.contains(&"layers.4.self_attn.k_proj.weight".into()));
    let text = stdout(program(&["inspect", "--backend", "cpu"]).arg(&model));
    let wanted =
        "7 layers (5 sliding over 6 positions, 2 full, 3 with others' keys and values), hidden size 32, 16 a layer";
    assert!(text.contains(wanted), "no {wanted:?} in {text}");
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
        for wanted in ["device: the model does not fit", "weights", "KV cache", "1073741824 positions", "--ctx "] {
            assert!(line.contains(wanted), "no {wanted:?} in {line}");
        }
    }
}

#[test]
fn a_context_of_max_takes_what_there_is() {
    let model = TinyModel::new().write();
    for backend in ["cpu", "wgpu"] {
        let args = ["--backend", backend, "--ctx", "max", "--json", "-n", "2", "--seed", "1", "--prompt", "hi"];
        assert_eq!(json(&stdout(&mut on_model("run", model.path(), &args)))["context_length"], 512);
    }
    let command = &mut on_model("run", model.path(), &["--backend", "cpu", "--ctx", "all", "hi"]);
    command.assert().code(2).stderr(predicates::str::contains("a number of tokens, or max"));
}

#[test]
fn inspect_refuses_what_run_refuses() {
    let line = error_line(&mut program(&["inspect", "--backend", "cpu", "/nonexistent/model.gguf"]));
    assert!(line.contains("/nonexistent/model.gguf"), "{line}");
    let mut incomplete = TinyModel::new();
    incomplete.tensors.remove("model.layers.1.mlp.down_proj.weight");
    let incomplete = incomplete.write();
    let line = error_line(program(&["inspect", "--backend", "cpu"]).arg(incomplete.path()));
    assert!(line.contains("layers.1.mlp.down_proj.weight: missing"), "{line}");
}
