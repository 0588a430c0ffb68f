//! Requests in the form of Codex 0.171 and Claude Code 2.1, with shorter texts.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Server, block_on, scripted};

const MODEL: &str = "demo";

/// A turn of Codex: its fields, its kinds of tools, and its headers.
fn codex(server: &Server, input: &[Value]) -> Vec<Value> {
    let function = |name: &str, properties: Value| {
        let parameters = json!({
            "type": "object",
            "properties": properties,
            "required": [],
            "additionalProperties": false,
        });
        json!({
            "type": "function",
            "name": name,
            "description": "d",
            "strict": false,
            "parameters": parameters,
        })
    };
    let body = json!({
        "model": MODEL,
        "stream": true,
        "input": input,
        "tools": [
            function("exec_command", json!({
                "cmd": {"type": "string"}, "login": {"type": "boolean"}})),
            function("view_image", json!({"path": {"type": "string"}})),
            {"type": "namespace", "name": "multi_agent_v1", "description": "d", "tools": [
                function("spawn_agent", json!({"items": {"type": "array", "items": {
                    "type": "object", "properties": {"text": {"type": "string"}}}}})),
                function("wait_agent", json!({"timeout_ms": {"type": "number"}})),
            ]},
            {"type": "custom", "name": "apply_patch", "description": "d", "format": {
                "type": "grammar", "syntax": "lark", "definition": "start: \"*** Begin Patch\""}},
            {"type": "web_search", "external_web_access": false},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": {"summary": "auto"},
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a22d96-c642-78d2-9952-abbd5d504285",
        "client_metadata": {"session_id": "s"},
    });
    let request = Request::post("/v1/responses")
        .header("accept", "text/event-stream")
        .header("content-type", "application/json")
        .header("originator", "codex_exec")
        .header("user-agent", "codex_exec/0.171.0")
        .header("session-id", "s");
    let answer = block_on(server.send(request.body(Body::from(body.to_string())).unwrap()));
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = |event: &str| -> Value {
        serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap()
    };
    let events: Vec<Value> = answer.body.trim_end().split("\n\n").map(data).collect();
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed", "{last}");
    // Codex takes finished items one by one.
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    let items: Vec<Value> = done.map(|event| event["item"].clone()).collect();
    assert_eq!(last["response"]["output"], json!(items));
    items
}

#[test]
fn codex_runs_its_loop() {
    let call =
        "I look.<|tool_call>call:exec_command{cmd:<|\"|>ls -la | grep \"x\"<|\"|>}<tool_call|>";
    let patch = "<|tool_call>call:apply_patch{input:<|\"|>*** Begin Patch\n+a\n*** End Patch<|\"|>}\
        <tool_call|>";
    let server = scripted(&[("say hello", call), ("main.rs", patch), ("Success", "Done.")]);
    let text = |role: &str, texts: &[&str]| {
        let part = |text: &&str| json!({"type": "input_text", "text": text});
        let content: Vec<Value> = texts.iter().map(part).collect();
        json!({"type": "message", "id": "msg_1", "role": role, "content": content})
    };
    let mut input = vec![
        text("developer", &["You are a coding agent."]),
        text("developer", &["<permissions>read only</permissions>", "<skills></skills>"]),
        text("user", &["<environment_context><cwd>/work</cwd></environment_context>"]),
        text("user", &["say hello"]),
    ];
    let outputs =
        [json!("Exit code: 0\nmain.rs"), json!([{"type": "input_text", "text": "Success"}])];
    for (output, kind) in outputs.iter().zip(["function_call", "custom_tool_call"]) {
        let items = codex(&server, &input);
        let call = items.last().unwrap().clone();
        assert_eq!(call["type"], kind);
        input.extend(items);
        let result = format!("{kind}_output");
        input.push(json!({"type": result, "call_id": call["call_id"], "output": output}));
    }
    let items = codex(&server, &input);
    assert_eq!(items[0]["content"][0]["text"], "Done.");
    let patch = input.iter().find(|item| item["type"] == "custom_tool_call").unwrap();
    assert_eq!(patch["input"], "*** Begin Patch\n+a\n*** End Patch");
}

/// A turn of Claude Code: its fields and headers. Returns its content blocks.
fn claude_code(server: &Server, billing: &str, messages: &[Value]) -> (Vec<Value>, u64) {
    let cached = json!({"type": "ephemeral"});
    let body = json!({
        "model": MODEL,
        "messages": messages,
        "system": [
            {"type": "text", "text": billing},
            {"type": "text", "text": "You are an agent.", "cache_control": cached},
            {"type": "text", "text": "\nUse the tools.", "cache_control": cached},
        ],
        "tools": [
            {"name": "Bash", "description": "d", "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {
                    "command": {"type": "string"},
                    "timeout": {"type": "number"},
                    "mode": {"anyOf": [{"const": "a"}, {"const": "b"}]},
                },
                "required": ["command"],
                "additionalProperties": false,
            }},
            {"name": "Read", "description": "d", "input_schema": {"type": "object",
                "properties": {"file_path": {"type": "string"}}}},
        ],
        "metadata": {"user_id": "{\"device_id\":\"d\",\"account_uuid\":\"\"}"},
        "max_tokens": 300,
        "thinking": {"budget_tokens": 200, "type": "enabled"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "stream": true,
    });
    let request = Request::post("/v1/messages?beta=true")
        .header("anthropic-version", "2023-06-01")
        .header("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14")
        .header("anthropic-dangerous-direct-browser-access", "true")
        .header("user-agent", "claude-cli/2.1.197 (external, sdk-cli)")
        .header("x-api-key", "any")
        .header("x-stainless-retry-count", "0");
    let answer = block_on(server.send(request.body(Body::from(body.to_string())).unwrap()));
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = |event: &str| -> Value {
        serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap()
    };
    let events: Vec<Value> = answer.body.trim_end().split("\n\n").map(data).collect();
    let mut blocks: Vec<Value> = Vec::new();
    for event in &events {
        match event["type"].as_str().unwrap() {
            "content_block_start" => blocks.push(event["content_block"].clone()),
            "content_block_delta" => {
                let block = blocks.last_mut().unwrap();
                for name in ["text", "thinking", "signature", "partial_json"] {
                    let Some(piece) = event["delta"][name].as_str() else { continue };
                    block[name] =
                        json!(block[name].as_str().unwrap_or_default().to_owned() + piece);
                }
            }
            "content_block_stop" => {
                let block = blocks.last_mut().unwrap();
                let json = block.as_object_mut().unwrap().remove("partial_json");
                if let Some(json) = json {
                    block["input"] = serde_json::from_str(json.as_str().unwrap()).unwrap();
                }
            }
            _ => {}
        }
    }
    (blocks, events[0]["message"]["usage"]["input_tokens"].as_u64().unwrap())
}

#[test]
fn claude_code_runs_its_loop() {
    let head = Request::head("/").body(Body::empty()).unwrap();
    let call = "<|channel>thought\nI need a list.<channel|><|tool_call>call:Bash{command:<|\"|>\
        ls 'a b'<|\"|>}<tool_call|>";
    let server = scripted(&[("say hello", call), ("main.rs", "Enough.<channel|>Done.")]);
    assert_eq!(block_on(server.send(head)).status, 200);
    let reminder = json!({"type": "text", "text": "<system-reminder>Today.</system-reminder>"});
    let ask = json!({"type": "text", "text": "say hello", "cache_control": {"type": "ephemeral"}});
    let mut messages = vec![json!({"role": "user", "content": [reminder, ask]})];
    let line =
        |number: u32| format!("x-anthropic-billing-header: cc_version=2.1.90; cch={number};");
    let (blocks, first) = claude_code(&server, &line(1), &messages);
    // Another billing line, the same prompt.
    assert_eq!(claude_code(&server, &line(1_000_000), &messages).1, first);
    let kinds: Vec<&str> = blocks.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["thinking", "tool_use"]);
    assert_eq!(blocks[1]["input"], json!({"command": "ls 'a b'"}));
    let result = json!({
        "type": "tool_result",
        "tool_use_id": blocks[1]["id"],
        "content": "main.rs",
        "is_error": false,
        "cache_control": {"type": "ephemeral"},
    });
    messages.push(json!({"role": "assistant", "content": blocks}));
    messages.push(json!({"role": "user", "content": [result]}));
    let (blocks, second) = claude_code(&server, &line(2), &messages);
    assert_eq!(blocks.last().unwrap()["text"], "Done.");
    assert!(second > first);
}
