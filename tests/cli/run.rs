//! `gemma4-wgpu run` and `devices` as a user calls them.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::support::{TinyModel, error_line, on_model, program, stdout};
use predicates::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

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
    // A run without a seed tells the one it took.
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
    // The same model, but its fourth token is an end token: it ends where that first occurs.
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

/// The embedded model answers where no other is named.
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

/// A run that has printed its first byte of an answer too long to finish by itself.
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

/// A model that never ends by itself: a large context and no end token.
fn endless_model() -> TempDir {
    let mut model = TinyModel::new();
    model.config["max_position_embeddings"] = 1_000_000.into();
    model.config["eos_token_id"] = Value::Array(vec![]);
    model.tokenizer_config["eos_token"] = Value::Null;
    model.write()
}

/// Waits for the end and gives the exit code and stderr.
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

/// Types a line into a chat at each of its prompts and gives all that it shows. The chat runs in a
/// terminal of util-linux's `script`.
#[cfg(target_os = "linux")]
fn chat(model: &TempDir, args: &str, lines: &[&str]) -> String {
    let program = assert_cmd::cargo::cargo_bin!("gemma4-wgpu").display().to_string();
    let command =
        format!("{program} run --quiet --backend cpu {args} --model {}", model.path().display());
    let mut script = std::process::Command::new("timeout");
    script.args(["60", "script", "--quiet", "--return", "--command", &command, "/dev/null"]);
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let mut shown = Vec::new();
    for line in lines {
        // The line editor announces that it reads by switching bracketed paste on.
        let typed = shown.len();
        while !shown[typed..].ends_with(b"\x1b[?2004h") {
            let mut byte = [0];
            screen
                .read_exact(&mut byte)
                .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&shown)));
            shown.extend(byte);
        }
        keys.write_all(format!("{line}\r").as_bytes()).unwrap();
    }
    screen.read_to_end(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(script.wait().unwrap().success(), "{shown}");
    shown
}

/// A model that thinks before it answers, asked or not.
fn thinker() -> TempDir {
    let tokens = ["<|channel>", "thought", "\n\n", "i", "<channel|>", "hello", "!", "<turn|>"];
    TinyModel::that_writes(&tokens).write()
}

#[test]
fn thoughts_are_shown_with_thinking_alone() {
    let model = thinker();
    assert_eq!(stdout(run(&model, &["--temperature", "0"]).arg("hi")), "hello!\n");
    let with_system = ["--temperature", "0", "--system", "be kind", "hi"];
    assert_eq!(stdout(&mut run(&model, &with_system)), "hello!\n");
    let shown = stdout(run(&model, &["--temperature", "0", "--thinking"]).arg("hi"));
    assert_eq!(shown, "Thinking...\ni\n...done thinking.\n\nhello!\n");
    // Cut off within the thoughts: they are thoughts still.
    let warning = predicate::str::contains("nothing but thoughts, which --thinking shows");
    let cut = ["--temperature", "0", "-n", "4", "hi"];
    run(&model, &cut).assert().success().stdout("\n").stderr(warning);
    let shown = run(&model, &cut).arg("--thinking").assert().success().stderr("");
    shown.stdout("Thinking...\ni\n");
}

#[test]
fn json_has_thoughts_apart_from_the_text() {
    let model = thinker();
    for thinking in [&[][..], &["--thinking"]] {
        let answer = json(run(&model, &["--json", "--temperature", "0", "hi"]).args(thinking));
        assert_eq!((&answer["text"], &answer["reasoning"]), (&"hello!".into(), &"i".into()));
        assert_eq!(answer["tokens"].as_array().unwrap().len(), 7);
        assert_eq!((answer.get("tool_calls"), answer.get("channels")), (None, None));
    }
    let plain = TinyModel::that_writes(&["h", "e", "y", "<turn|>"]).write();
    let answer = json(&mut run(&plain, &["--json", "--temperature", "0", "hi"]));
    assert_eq!((&answer["text"], &answer["reasoning"]), (&"hey".into(), &Value::Null));
}

#[test]
fn calls_are_set_apart() {
    let call = ["<|tool_call>", "call:f{a:", "<|\"|>", "x y", "b", "}", "<tool_call|>", "<turn|>"];
    let quoted = ["<|tool_call>", "call:f{a:1,b:[true,null]}", "<tool_call|>", "<turn|>"];
    let model = TinyModel::that_writes(&quoted).write();
    let answer = json(&mut run(&model, &["--json", "--temperature", "0", "hi"]));
    let arguments = serde_json::json!({"a": 1, "b": [true, null]});
    let function = serde_json::json!({"name": "f", "arguments": arguments});
    let expected = serde_json::json!([{"type": "function", "function": function}]);
    assert_eq!((&answer["tool_calls"], &answer["text"]), (&expected, &"".into()));
    let shown = stdout(run(&model, &["--temperature", "0"]).arg("hi"));
    assert!(shown.starts_with("[call] f({\"a\":1,\"b\":[true,null]})\n"), "{shown}");
    // A string without an end.
    let model = TinyModel::that_writes(&call).write();
    let answer = json(&mut run(&model, &["--json", "--temperature", "0", "hi"]));
    let broken = &answer["broken_tool_calls"][0];
    let expected = ("call:f{a:<|\"|>x yb}", "a string has no end");
    assert_eq!((broken["text"].as_str().unwrap(), broken["reason"].as_str().unwrap()), expected);
    assert!(answer.get("tool_calls").is_none());
}

#[cfg(target_os = "linux")]
#[test]
fn a_chat_leaves_earlier_thoughts_out() {
    let model = thinker();
    let prompts = |shown: &str| -> Vec<String> {
        let lines = shown.lines().filter(|line| line.starts_with("prompt "));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    let shown = chat(&model, "--stats --temperature 0 --thinking", &["hi", "hi", "/exit"]);
    // A terminal shows thoughts dimmed.
    assert!(shown.contains("\x1b[2mi\x1b[22m\r\n\r\nhello!\r\n"), "{shown:?}");
    // Bytes are tokens: 13 up to the system turn's end, 10 of a user's, 7 that begin the model's,
    // and 8 that end it after the thoughts.
    let second = "prompt         55 tokens, 30 of them cached";
    assert_eq!(prompts(&shown), ["prompt         30 tokens, 0 of them cached", second]);
    let shown = chat(&model, "--stats --temperature 0", &["hi", "hi", "/exit"]);
    assert!(shown.contains("hello!\r\n") && !shown.contains("\x1b[2m"), "{shown:?}");
    let second = "prompt         43 tokens, 18 of them cached";
    assert_eq!(prompts(&shown), ["prompt         18 tokens, 0 of them cached", second]);
    // Nothing was cut from this answer: all of it is known, in the model's own tokens.
    let plain = TinyModel::that_writes(&["hello", "!", "<turn|>"]).write();
    let shown = chat(&plain, "--stats --temperature 0", &["hi", "hi", "/exit"]);
    let second = "prompt         39 tokens, 20 of them cached";
    assert_eq!(prompts(&shown), ["prompt         18 tokens, 0 of them cached", second]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_chat_names_what_helps_when_its_context_is_full() {
    let model = TinyModel::that_writes(&["h", "e", "l", "o", "u", "r", "s", "x", "y", "z"]).write();
    let lines = ["/help", "//clear", "hi", "/exit"];
    let shown = chat(&model, "--stats --temperature 0 --ctx 24", &lines);
    // One slash is left of two: bytes of a prompt with "/clear".
    assert!(shown.contains("prompt         22 tokens"), "{shown}");
    let full = "the context of 24 tokens is full, so the answer ends here; ";
    assert!(shown.contains(&format!("{full}/clear empties it, --ctx sets its length")), "{shown}");
    assert!(shown.contains("but the context holds 24; /clear empties it"), "{shown}");
    assert!(shown.contains("// begins a prompt with a slash"), "{shown}");
    let alone = run(&model, &["--temperature", "0", "--ctx", "24", "hi"]).assert().success();
    alone.stderr(predicate::str::contains(format!("{full}--ctx sets its length")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_chat_goes_on_where_it_was_and_obeys_commands() {
    let model = TinyModel::new().write();
    let shown = chat(
        &model,
        "-n 5 --stats --temperature 0",
        &["hi", "/help", "/later", "hi", "/clear", "hi", "/exit"],
    );
    let prompts: Vec<&str> =
        shown.lines().filter(|line| line.starts_with("prompt ")).map(str::trim).collect();
    // The second turn finds the first prompt (its answer is bytes that are no text, which come back
    // as others); /clear forgets all.
    let first = "prompt         18 tokens, 0 of them cached";
    assert_eq!((prompts.len(), prompts[0], prompts[2]), (3, first, first), "{shown}");
    assert!(prompts[1].ends_with(", 18 of them cached"), "{shown}");
    assert!(
        shown.contains("/later: no such command") && shown.contains("/clear forgets"),
        "{shown}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_chat_survives_a_prompt_that_does_not_fit() {
    let model = TinyModel::new().write();
    let long = "x".repeat(100);
    let shown = chat(&model, "-n 3 --stats --ctx 40", &[&long, "hi", "/exit"]);
    assert!(
        shown.contains("error: the prompt has 116 tokens, but the context holds 40"),
        "{shown}"
    );
    assert!(shown.contains("prompt         18 tokens"), "{shown}");
}

#[test]
fn devices_lists_the_same_adapters_both_ways() {
    let list: Value = serde_json::from_str(&stdout(&mut program(&["devices", "--json"]))).unwrap();
    let text = stdout(&mut program(&["devices"]));
    // MLX's device, where it is built in, comes after the adapters and has no number.
    let adapters: Vec<&Value> =
        list.as_array().unwrap().iter().filter(|entry| entry["index"].is_u64()).collect();
    assert!(
        !adapters.is_empty(),
        "the tests need an adapter: install a Vulkan driver such as lavapipe"
    );
    for adapter in adapters {
        assert!(text.contains(&format!(
            "{}: {}",
            adapter["index"],
            adapter["name"].as_str().unwrap()
        )));
        assert!(adapter["subgroup_min_size"].is_u64() && adapter["shader_f16"].is_boolean());
        let kernels = adapter["kernels"].as_str().unwrap();
        assert!(kernels.parse::<gemma4_wgpu::gpu::KernelOptions>().is_ok(), "{kernels}");
        assert!(kernels.contains("checks=off") && text.contains(kernels), "{text}");
        let bus = &adapter["pci_bus_id"];
        assert!(bus.is_null() || bus.as_str().unwrap().contains(':'), "{bus}");
        assert!(text.contains(&format!(
            "pci bus id                   {}",
            bus.as_str().unwrap_or("unknown")
        )));
    }
}

/// Without options a GPU answers if there is one; a software driver is none, unless something asks
/// for it.
#[test]
fn a_software_driver_is_taken_only_if_it_is_asked_for() {
    let list: Value = serde_json::from_str(&stdout(&mut program(&["devices", "--json"]))).unwrap();
    let adapters: Vec<&Value> =
        list.as_array().unwrap().iter().filter(|entry| entry["index"].is_u64()).collect();
    assert!(
        !adapters.is_empty(),
        "the tests need an adapter: install a Vulkan driver such as lavapipe"
    );
    let is_software = adapters.iter().all(|adapter| adapter["device_type"] == "CPU");
    let model = TinyModel::new().write();
    let run = |args: &[&str]| {
        let args = [&["--json", "-n", "1", "--raw-prompt", "--prompt", "hi"], args].concat();
        let output = on_model("run", model.path(), &args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (answer["backend"].as_str().unwrap().to_owned(), stderr)
    };
    let (backend, told) = run(&["--backend", "auto"]);
    match (is_software, backend.as_str()) {
        (true, "cpu") => {
            let name = adapters[0]["name"].as_str().unwrap();
            assert!(
                told.starts_with("warning: no adapter but ") && told.lines().count() == 1,
                "{told}"
            );
            assert!(
                adapters.len() > 1 || told.contains(&format!("{name}, a software driver")),
                "{told}"
            );
        }
        // On a Mac with MLX it is that.
        (false, "wgpu" | "mlx") => assert_eq!(told, ""),
        _ => panic!("{backend} where software is all there is: {is_software}; {told}"),
    }
    let place = adapters[0]["index"].to_string();
    for asked in [&["--backend", "wgpu"][..], &["--adapter", &place], &["--kernels", "checks=on"]] {
        let (backend, told) = run(asked);
        assert_eq!(backend, "wgpu");
        let notes = told.starts_with("note: ") && told.contains("which first compiles each kernel");
        assert!(
            if is_software { notes && told.lines().count() == 1 } else { told.is_empty() },
            "{told}"
        );
    }
    assert_eq!(run(&["--backend", "wgpu", "--quiet"]).1, "");
}

/// Two sets of one part each in a directory: the named file counts.
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
