//! `gemma4-wgpu run` and `devices` as a user calls them.

use crate::support::{TinyModel, error_line, on_model, program, stdout};
use predicates::prelude::*;
use serde_json::Value;
use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

mod chats;
mod devices;
mod form;

const CPU: [&str; 2] = ["--backend", "cpu"];

fn run(model: &TempDir, args: &[&str]) -> assert_cmd::Command {
    on_model("run", model.path(), &[&CPU[..], args].concat())
}

fn json(command: &mut assert_cmd::Command) -> Value {
    serde_json::from_str(&stdout(command)).unwrap()
}

#[test]
fn a_prompt_comes_from_an_option_the_arguments_or_standard_input() {
    let model = TinyModel::new().write();
    let args = ["--temperature", "0", "-n", "12"];
    let option = stdout(run(&model, &args).args(["--prompt", "tell me more"]));
    assert!(option.ends_with('\n') && option.len() > 1);
    assert_eq!(stdout(run(&model, &args).args(["tell", "me", "more"])), option);
    assert_eq!(stdout(run(&model, &args).write_stdin("tell me more\n")), option);
    assert_ne!(stdout(run(&model, &args).args(["tell me less"])), option);
}

#[test]
fn the_template_and_the_system_message_reach_the_model() {
    let model = TinyModel::new().write();
    let count = |args: &[&str]| {
        json(run(&model, &["--json", "-n", "1"]).args(args))["prompt_tokens"].clone()
    };
    // <bos> h i
    assert_eq!(count(&["--raw-prompt", "hi"]), 3);
    // <bos> <|turn> user\n hi <turn|> \n <|turn> model\n
    assert_eq!(count(&["hi"]), 18);
    // and before it <|turn> system\n be kind <turn|> \n
    assert_eq!(count(&["--system", "be kind", "hi"]), 18 + 17);
}

#[test]
fn json_holds_the_answer_and_its_figures() {
    let model = TinyModel::new().write();
    let answer = json(&mut run(
        &model,
        &["--json", "--temperature", "0", "-n", "9", "--raw-prompt", "abcdefg"],
    ));
    let tokens = answer["tokens"].as_array().unwrap();
    assert_eq!((tokens.len(), &answer["finish_reason"]), (9, &"length".into()));
    assert_eq!(answer["prompt_tokens"], 8);
    assert_eq!(answer["generated_tokens"], 9);
    assert_eq!(answer["backend"], "cpu");
    for figure in
        ["time_to_first_token_s", "prefill_tokens_per_s", "decode_tokens_per_s", "weight_bytes"]
    {
        assert!(answer[figure].as_f64().unwrap() > 0.0, "{figure} in {answer}");
    }
    assert!(answer["peak_device_bytes"].as_u64() >= answer["weight_bytes"].as_u64());
    let text =
        stdout(&mut run(&model, &["--temperature", "0", "-n", "9", "--raw-prompt", "abcdefg"]));
    assert_eq!(text, format!("{}\n", answer["text"].as_str().unwrap()));
}

#[test]
fn a_seed_fixes_the_text() {
    let model = TinyModel::new().write();
    let tokens = |seed: &str| {
        json(&mut run(&model, &["--json", "-n", "24", "--seed", seed, "hi"]))["tokens"].clone()
    };
    assert_eq!(tokens("5"), tokens("5"));
    assert_ne!(tokens("5"), tokens("6"));
    // A run without a seed prints the seed that it chose.
    let free = json(&mut run(&model, &["--json", "-n", "24", "hi"]));
    assert_eq!(tokens(&free["seed"].to_string()), free["tokens"]);
}

#[test]
fn an_end_token_stops_the_answer_and_the_context_bounds_it() {
    let mut model = TinyModel::new();
    let args = ["--json", "--temperature", "0", "--raw-prompt", "abc", "--ctx", "20"];
    let free = json(&mut run(&model.write(), &args));
    assert_eq!(free["finish_reason"], "context_full");
    let tokens = free["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 20 - 4 + 1);
    // The same model with its fourth token as end token. It ends where that token first occurs.
    model.config["eos_token_id"] = tokens[3].clone();
    let stopped = json(&mut run(&model.write(), &args));
    let end = tokens.iter().position(|token| *token == tokens[3]).unwrap();
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["tokens"].as_array().unwrap()[..], tokens[..end]);
}

#[test]
fn stats_go_to_stderr() {
    let model = TinyModel::new().write();
    let stats = predicate::str::contains("prefill ").and(predicate::str::contains("decode "));
    let stats = stats
        .and(predicate::str::contains("device memory "))
        .and(predicate::str::contains("first token "));
    run(&model, &["--stats", "-n", "4", "hi"]).assert().success().stderr(stats);
    run(&model, &["-n", "4", "hi"]).assert().success().stderr("");
}

#[test]
fn usage_errors_exit_with_2() {
    program(&["run", "--model"]).assert().code(2).stderr(predicate::str::contains("--model"));
    program(&["run", "--model", "x", "--ctx", "0"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--ctx"));
    program(&["run", "--model", "x", "-n", "0"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--max-new-tokens"));
    program(&["walk"]).assert().code(2).stderr(predicate::str::contains("walk"));
    program(&["eval", "--model", "x"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--token-ids"));
    program(&["--version"])
        .assert()
        .success()
        .stdout(predicate::str::contains(env!("CARGO_PKG_VERSION")));
}

/// The embedded model answers if no other model is named.
#[test]
fn the_demo_model_is_the_default() {
    let args = ["--backend", "cpu", "--temperature", "0", "-n", "40", "Who are you?"];
    let answer = stdout(&mut program(&[&["run"][..], &args].concat()));
    assert!(answer.contains("I am a very small Gemma 4 model"), "{answer}");
    assert_eq!(stdout(&mut program(&[&["run", "--model", "demo"][..], &args].concat())), answer);
    let verse = [
        "eval",
        "--backend",
        "cpu",
        "--json",
        "--text",
        "tests/fixtures/demo/heldout.txt",
        "--max-tokens",
        "9",
    ];
    assert!(stdout(&mut program(&verse)).contains("perplexity"));
}

/// A run that has printed the first byte of an endless answer.
fn endless(model: &TempDir) -> Child {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("gemma4-wgpu"));
    command
        .args(["run", "--backend", "cpu", "--ctx", "1000000", "--seed", "1", "--model"])
        .arg(model.path())
        .arg("hi");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

/// A model whose answers never end: a large context and no end token.
fn endless_model() -> TempDir {
    let mut model = TinyModel::new();
    model.config["max_position_embeddings"] = 1_000_000.into();
    model.config["eos_token_id"] = Value::Array(vec![]);
    model.tokenizer_config["eos_token"] = Value::Null;
    model.write()
}

/// Waits for the end and returns the exit code and stderr.
fn end(mut child: Child) -> (Option<i32>, String) {
    let limit = Instant::now() + Duration::from_secs(60);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > limit => {
                child.kill().unwrap();
                panic!("the program did not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let mut stderr = String::new();
    child.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    (status.code(), stderr)
}

#[test]
fn a_closed_standard_output_ends_the_program_quietly() {
    let mut child = endless(&endless_model());
    drop(child.stdout.take());
    assert_eq!(end(child), (Some(0), String::new()));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer() {
    let mut child = endless(&endless_model());
    let interrupted = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest.last(), Some(&b'\n'), "the answer's line is finished");
    assert_eq!(end(child), (Some(130), String::new()));
}

/// Two sets of one part each in a directory. The named file decides.
#[test]
fn a_named_shard_opens_its_own_set() {
    let (first, second) =
        (TinyModel::that_writes(&["a", "<turn|>"]), TinyModel::that_writes(&["b", "<turn|>"]));
    let (directory, other) = (first.write(), second.write());
    let at = |name: &str| directory.path().join(name);
    std::fs::rename(at("model.safetensors"), at("model-00001-of-00001.safetensors")).unwrap();
    let variant = at("model.fp16-00001-of-00001.safetensors");
    std::fs::copy(other.path().join("model.safetensors"), &variant).unwrap();
    let answer = |path: &Path| {
        stdout(&mut on_model("run", path, &["-q", "--backend", "cpu", "--temperature", "0", "hi"]))
    };
    assert_eq!(answer(&at("model-00001-of-00001.safetensors")).trim(), "a");
    assert_eq!(answer(&variant).trim(), "b");
    let half = at("half-00001-of-00002.safetensors");
    std::fs::copy(other.path().join("model.safetensors"), &half).unwrap();
    let line = error_line(&mut on_model("run", &half, &["--backend", "cpu", "hi"]));
    assert!(line.contains("half-00002-of-00002.safetensors is missing"), "{line}");
}
