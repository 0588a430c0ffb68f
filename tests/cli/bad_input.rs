//! Bad input causes exit code 1 and one line that names the fault.

use std::fs;

use crate::support::{TinyModel, error_line, file, on_model};
use assert_cmd::Command;
use serde_json::json;
use tempfile::TempDir;

fn run(model: &TempDir) -> Command {
    on_model("run", model.path(), &["--backend", "cpu", "-n", "1", "--prompt", "hi"])
}

fn run_file(model: &std::path::Path) -> Command {
    on_model("run", model, &["--backend", "cpu", "-n", "1", "--prompt", "hi"])
}

#[track_caller]
fn fails_with(command: &mut Command, wanted: &[&str]) {
    let line = error_line(command);
    for wanted in wanted {
        assert!(line.contains(wanted), "{line:?} does not say {wanted:?}");
    }
}

/// A tiny model with a fault that `spoil` makes before it is written.
#[track_caller]
fn spoiled(spoil: impl FnOnce(&mut TinyModel), wanted: &[&str]) {
    let mut model = TinyModel::new();
    spoil(&mut model);
    fails_with(&mut run(&model.write()), wanted);
}

/// A tiny model whose weights' file is replaced.
#[track_caller]
fn weights(change: impl FnOnce(Vec<u8>) -> Vec<u8>, wanted: &[&str]) {
    let model = TinyModel::new();
    let dir = model.write();
    file(&dir, "model.safetensors", change(model.safetensors()));
    fails_with(&mut run(&dir), wanted);
}

#[test]
fn the_unspoiled_model_runs() {
    run(&TinyModel::new().write()).assert().success();
}

#[test]
fn missing_files() {
    fails_with(&mut run_file("/nonexistent/model.gguf".as_ref()), &["/nonexistent/model.gguf"]);
    fails_with(&mut run_file("gemma-4-31b".as_ref()), &["gemma-4-31b", "no such path", "demo"]);
    let empty = tempfile::tempdir().unwrap();
    fails_with(&mut run(&empty), &["config.json"]);
    let model = TinyModel::new().write();
    fs::remove_file(model.path().join("model.safetensors")).unwrap();
    fails_with(&mut run(&model), &["safetensors"]);
    let model = TinyModel::new().write();
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    fails_with(&mut run(&model), &["tokenizer"]);
}

#[test]
fn safetensors_cut_short_or_corrupt() {
    weights(|bytes| bytes[..4].to_vec(), &["model.safetensors"]);
    weights(|bytes| bytes[..bytes.len() / 4].to_vec(), &["model.safetensors"]);
    weights(|bytes| bytes[..bytes.len() - 1].to_vec(), &["model.safetensors"]);
    weights(|bytes| [&(1u64 << 63).to_le_bytes(), &bytes[8..]].concat(), &["model.safetensors"]);
    weights(|bytes| [&bytes[..8], &vec![b'x'; bytes.len() - 8]].concat(), &["model.safetensors"]);
    let header = |tensor: &str| {
        let header = format!("{{\"model.norm.weight\":{tensor}}}");
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 64]].concat()
    };
    let with = |tensor: &str| {
        let bytes = header(tensor);
        move |_: Vec<u8>| bytes
    };
    weights(
        with(r#"{"dtype":"F32","shape":[16],"data_offsets":[0,1024]}"#),
        &["model.safetensors", "norm"],
    );
    weights(
        with(r#"{"dtype":"F32","shape":[16],"data_offsets":[64,0]}"#),
        &["model.safetensors", "norm"],
    );
    weights(with(r#"{"dtype":"F32","shape":[-16],"data_offsets":[0,64]}"#), &["model.safetensors"]);
    weights(
        with(r#"{"dtype":"F32","shape":[9223372036854775807,8],"data_offsets":[0,64]}"#),
        &["model.safetensors", "norm"],
    );
    weights(with(r#"{"dtype":"Q9","shape":[16],"data_offsets":[0,64]}"#), &["Q9"]);
}

#[test]
fn gguf_cut_short_or_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let gguf = |name: &str, parts: &[&[u8]], wanted: &str| {
        fails_with(&mut run_file(&file(&dir, name, parts.concat())), &[name, wanted]);
    };
    let (v3, none, huge) = (3u32.to_le_bytes(), 0u64.to_le_bytes(), (1u64 << 63).to_le_bytes());
    gguf("empty.gguf", &[], "");
    gguf("magic.gguf", &[b"GGML", &v3, &none, &none], "magic");
    gguf("version.gguf", &[b"GGUF", &99u32.to_le_bytes(), &none, &none], "99");
    gguf("short.gguf", &[b"GGUF", &v3], "");
    gguf("tensors.gguf", &[b"GGUF", &v3, &huge, &none], "");
    gguf("keys.gguf", &[b"GGUF", &v3, &none, &huge], "");
    gguf("key.gguf", &[b"GGUF", &v3, &none, &1u64.to_le_bytes(), &huge, b"general"], "");
    let bare = file(&dir, "bare.gguf", [b"GGUF", &v3[..], &none, &none].concat());
    fails_with(&mut run_file(&bare), &["general.architecture"]);
    // The unsupported architecture is named.
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let key = [text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("llama")].concat();
    let llama =
        file(&dir, "llama.gguf", [b"GGUF", &v3[..], &none, &1u64.to_le_bytes(), &key].concat());
    fails_with(&mut run_file(&llama), &["unsupported", "llama"]);
}

#[test]
fn configs_that_cannot_run() {
    spoiled(|model| model.config["model_type"] = "llama".into(), &["unsupported", "llama"]);
    spoiled(
        |model| model.config["enable_moe_block"] = true.into(),
        &["moe_intermediate_size is missing", "enable_moe_block"],
    );
    spoiled(
        |model| model.config["num_kv_shared_layers"] = 1.into(),
        &["num_kv_shared_layers = 1", "none of its kind"],
    );
    spoiled(|model| model.config["hidden_size"] = json!(-16), &["hidden_size"]);
    spoiled(|model| model.config["hidden_size"] = json!("large"), &["hidden_size"]);
    spoiled(|model| model.config["layer_types"] = json!(["full_attention"]), &["layer_types"]);
    let model = TinyModel::new().write();
    file(&model, "config.json", "{ \"model_type\": ");
    fails_with(&mut run(&model), &["config.json"]);
}

#[test]
fn tensors_missing_or_of_another_shape() {
    let name = "model.layers.1.mlp.up_proj.weight";
    spoiled(|model| drop(model.tensors.remove(name)), &["layers.1.mlp.up_proj.weight", "missing"]);
    let transpose = |model: &mut TinyModel| model.tensors.get_mut(name).unwrap().0.reverse();
    spoiled(transpose, &["layers.1.mlp.up_proj.weight", "[16, 32]", "[32, 16]"]);
    spoiled(|model| model.config["vocab_size"] = 300.into(), &["embed_tokens", "300"]);
}

#[test]
fn prompts_that_do_not_fit() {
    let model = TinyModel::new().write();
    fails_with(
        run(&model).args(["--ctx", "10"]),
        &["the prompt has 18 tokens", "the context holds 10"],
    );
    let long = "x".repeat(600);
    let run_long = &mut on_model("run", model.path(), &["--backend", "cpu", "--raw-prompt", &long]);
    fails_with(run_long, &["the prompt has 601 tokens", "the context holds 512"]);
    fails_with(run(&model).args(["--ctx", "513"]), &["--ctx 513", "512"]);
}

#[test]
fn a_context_beyond_memory() {
    // 2^30 positions of 512 f32 keys and values: 4 TiB.
    let mut model = TinyModel::with_full_head_dim(512);
    model.config["max_position_embeddings"] = (1 << 30).into();
    let model = model.write();
    for backend in ["cpu", "wgpu"] {
        let args =
            ["--backend", backend, "--cache-type", "f32", "--ctx", "1073741824", "--prompt", "hi"];
        fails_with(&mut on_model("run", model.path(), &args), &["device: ", "1073741824"]);
    }
}

#[test]
fn no_adapter_and_no_such_adapter() {
    let model = TinyModel::new().write();
    let wgpu = |args: &[&str]| {
        on_model("run", model.path(), &[&["-n", "2", "--prompt", "hi"], args].concat())
    };
    let fails =
        |command: &mut Command, wanted: &str| fails_with(command, &["device: no adapter", wanted]);
    fails(&mut wgpu(&["--adapter", "Voodoo2"]), "Voodoo2");
    // A number in the device's name is not the device's own number.
    for number in ["99", "15"] {
        fails(
            &mut wgpu(&["--adapter", number]),
            &format!("number {number}, and a number is no part of a name"),
        );
    }
    fails(&mut wgpu(&["--adapter", "ffff:ff:1f.7"]), "ffff:ff:1f.7");
    fails_with(wgpu(&["--backend", "cpu"]).args(["--adapter", "0"]), &["--adapter", "cpu"]);
}

/// Without any driver, an explicit GPU is an error. Otherwise there is a warning and the CPU runs.
#[cfg(target_os = "linux")]
#[test]
fn without_a_driver() {
    let model = TinyModel::new().write();
    let command = |name: &str, args: &[&str]| {
        let mut command = on_model(name, model.path(), args);
        for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"] {
            command.env(variable, "/nonexistent/icd.json");
        }
        command
    };
    let run = |args: &[&str]| command("run", &[&["-n", "2", "--prompt", "hi"], args].concat());
    fails_with(&mut run(&["--backend", "wgpu"]), &["device: no adapter"]);
    fails_with(&mut run(&["--adapter", "llvm"]), &["device: no adapter"]);
    // The length of the context needs the device too, but there is no second message.
    for args in [&[][..], &["--ctx", "max"]] {
        let output = run(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let told = stderr.starts_with("warning: no adapter: running on the CPU");
        assert!(told && stderr.lines().count() == 1, "{stderr}");
    }
    let out = tempfile::tempdir().unwrap();
    let quantize = |backend: &str| {
        let mut command =
            command("quantize", &["--recipe", "hqq", "--backend", backend, "--output"]);
        command.arg(out.path());
        command
    };
    fails_with(&mut quantize("wgpu"), &["device: no adapter"]);
    quantize("auto").assert().success();
}

#[test]
fn sampling_values() {
    let model = TinyModel::new().write();
    for (option, value, name) in [
        ("--temperature", "-1", "--temperature"),
        ("--temperature", "nan", "--temperature"),
        ("--top-p", "1.5", "--top-p"),
        ("--top-p", "-0.1", "--top-p"),
        ("--min-p", "2", "--min-p"),
        ("--repetition-penalty", "0", "--repetition-penalty"),
        ("--repetition-penalty", "inf", "--repetition-penalty"),
    ] {
        let args = ["--backend", "cpu", "--prompt", "hi", option, value];
        fails_with(&mut on_model("run", model.path(), &args), &[name]);
    }
}

#[test]
fn standard_input() {
    let model = TinyModel::new().write();
    let run = |bytes: &[u8]| {
        let mut command = on_model("run", model.path(), &["--backend", "cpu"]);
        command.write_stdin(bytes);
        command
    };
    fails_with(&mut run(b"caf\xe9"), &["standard input: invalid UTF-8 at byte 3"]);
    fails_with(&mut run(b"\n"), &["standard input: no prompt"]);
}

#[test]
fn templates_and_tokenizers_that_fail() {
    let template = |source: &'static str| {
        move |model: &mut TinyModel| model.tokenizer_config["chat_template"] = source.into()
    };
    spoiled(
        template("{{ raise_exception('no user here') }}"),
        &["chat template: ", "no user here"],
    );
    spoiled(template("{% for x in %}"), &["chat template: "]);
    spoiled(template("{{ messages.nothing.at.all }}"), &["chat template: "]);
    spoiled(template("{% for i in range(100000000) %}{{ i }}{% endfor %}"), &["chat template: "]);
    spoiled(
        |model| model.tokenizer["model"] = json!({ "type": "Wishful" }),
        &["tokenizer", "Wishful"],
    );
    spoiled(|model| model.tokenizer = json!([]), &["tokenizer: "]);
}

/// Pointer files that Git leaves without Git LFS, and weights in formats that are not supported.
#[test]
fn files_that_are_not_there_yet_are_named() {
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{:064}\nsize 33384568\n",
        0
    );
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let model = TinyModel::new().write();
        fs::write(model.path().join(name), &pointer).unwrap();
        let line = error_line(&mut on_model("run", model.path(), &["--backend", "cpu", "hi"]));
        assert!(
            line.contains(name)
                && line.contains("is a Git LFS pointer")
                && line.contains("git lfs pull"),
            "{line}"
        );
    }
    let model = TinyModel::new().write();
    let path = model.path().join("model.gguf");
    fs::write(&path, &pointer).unwrap();
    let line = error_line(&mut on_model("run", &path, &["--backend", "cpu", "hi"]));
    assert!(line.contains("model.gguf") && line.contains("git lfs pull"), "{line}");
    for name in ["pytorch_model.bin", "consolidated.00.pth", "consolidated.safetensors"] {
        let model = TinyModel::new().write();
        fs::rename(model.path().join("model.safetensors"), model.path().join(name)).unwrap();
        let line = error_line(&mut on_model("run", model.path(), &["--backend", "cpu", "hi"]));
        assert!(line.contains(&format!("{name} is not read")), "{line}");
    }
    let model = TinyModel::new().write();
    fs::rename(model.path().join("tokenizer.json"), model.path().join("tokenizer.model")).unwrap();
    let line = error_line(&mut on_model("run", model.path(), &["--backend", "cpu", "hi"]));
    assert!(
        line.contains("tokenizer.json is needed") && line.contains("tokenizer.model is not read"),
        "{line}"
    );
}

/// `--threads` from one to as many as there are, and no other.
#[test]
fn threads_are_those_of_the_process() {
    let model = TinyModel::new().write();
    let most = std::thread::available_parallelism().unwrap().get();
    for threads in [1, most] {
        run(&model).args(["--threads", &threads.to_string()]).assert().success();
    }
    let wanted = [format!("{} threads", most + 1), format!("may use {most}")];
    let mut command = run(&model);
    command.args(["--threads", &(most + 1).to_string()]);
    fails_with(&mut command, &wanted.each_ref().map(String::as_str));
    let stderr = predicates::str::contains("--threads");
    run(&model).args(["--threads", "0"]).assert().code(2).stderr(stderr);
}

/// Both ways to compute refuse a matrix with a scale that is infinite or not a number.
#[test]
fn scales_that_are_not_finite_are_refused() {
    for value in [f32::INFINITY, f32::NAN] {
        let mut model = TinyModel::new();
        let name = "model.layers.1.mlp.up_proj.weight";
        model.tensors.get_mut(name).unwrap().1[5] = value;
        let model = model.write();
        for way in [&["--quantize", "int4"][..], &["--quantize", "int4", "--exact"]] {
            fails_with(run(&model).args(way), &["layers.1.mlp.up_proj.weight"]);
        }
    }
}
