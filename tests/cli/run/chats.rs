//! Conversations, thoughts and tool calls.

use super::*;

/// Types a line into a chat at each of its prompts and returns everything that it shows.
/// The chat runs in a terminal of util-linux's `script`.
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
        // The line editor turns bracketed paste on when it reads.
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

/// A model that thinks before each answer, even without a request.
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
    // An answer that ends within the thoughts consists of thoughts.
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
    // A string that does not end.
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
    // Bytes are tokens. The system turn has 13, a user turn 10, and the model turn begins with 7.
    // After the thoughts, 8 tokens end the model turn.
    let second = "prompt         55 tokens, 30 of them cached";
    assert_eq!(prompts(&shown), ["prompt         30 tokens, 0 of them cached", second]);
    let shown = chat(&model, "--stats --temperature 0", &["hi", "hi", "/exit"]);
    assert!(shown.contains("hello!\r\n") && !shown.contains("\x1b[2m"), "{shown:?}");
    let second = "prompt         43 tokens, 18 of them cached";
    assert_eq!(prompts(&shown), ["prompt         18 tokens, 0 of them cached", second]);
    // No part of this answer is removed. So all of it is cached, in the model's own tokens.
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
    // Of two slashes one remains. The prompt is the bytes of "/clear".
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
    // The second turn finds the first prompt in the cache.
    // Its answer is invalid text, which other bytes replace. /clear empties the cache.
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
