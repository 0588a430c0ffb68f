//! `/v1/messages`

use gemma4_wgpu::generate::SchedulerOptions;
use gemma4_wgpu::server::ServerOptions;
use serde_json::{Value, json};

use super::{CALLS, MALFORMED, arguments, schema};
use crate::support::{Answer, Server, block_on, scripted, scripted_with};

fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "demo",
        "max_tokens": 200,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "weather?"}]}],
        "tools": [
            {"name": "sky", "description": "d", "input_schema": schema()},
            {"name": "list", "input_schema": {"type": "object"}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        ],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "temperature": 0,
        "metadata": {"user_id": "u"},
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn post(server: &Server, body: Value) -> Answer {
    block_on(server.post("/v1/messages", body.to_string()))
}

#[test]
fn thoughts_texts_and_calls_are_blocks() {
    let server = scripted(&[("weather?", CALLS)]);
    let answer = post(&server, body(json!({})));
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = answer.json();
    assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(message["stop_reason"], "tool_use");
    let blocks = message["content"].as_array().unwrap();
    let kinds: Vec<&Value> = blocks.iter().map(|block| &block["type"]).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    assert_eq!(blocks[0]["thinking"], "Let me look.");
    assert_eq!(blocks[1]["text"], "I call.");
    assert_eq!([blocks[2]["input"].clone(), blocks[3]["input"].clone()], arguments());
    assert!(message["usage"]["input_tokens"].as_u64().unwrap() > 0);
    assert!(message["usage"]["output_tokens"].as_u64().unwrap() > 0);
}

/// The events of a stream: each has its type as its name.
#[track_caller]
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let whole = answer.body.strip_suffix("\n\n").expect("each event ends with an empty line");
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        data
    };
    whole.split("\n\n").map(event).collect()
}

#[test]
fn a_stream_has_the_events_of_anthropic() {
    let server = scripted(&[("weather?", CALLS)]);
    let answer = post(&server, body(json!({"stream": true})));
    let events = events(&answer);
    assert_eq!(events[0]["message"]["content"], json!([]));
    assert!(events[0]["message"]["usage"]["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(events[1], json!({"type": "ping"}));
    let mut blocks: Vec<Value> = Vec::new();
    let mut is_open = false;
    for event in &events[2..events.len() - 2] {
        let index = event["index"].as_u64().unwrap() as usize;
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(!is_open && index == blocks.len());
                blocks.push(event["content_block"].clone());
                is_open = true;
            }
            "content_block_delta" => {
                assert!(is_open && index + 1 == blocks.len());
                let delta = &event["delta"];
                for name in ["text", "thinking", "partial_json"] {
                    let Some(piece) = delta[name].as_str() else { continue };
                    let whole = blocks[index][name].as_str().unwrap_or_default().to_owned();
                    blocks[index][name] = json!(whole + piece);
                }
            }
            _ => {
                assert_eq!(event["type"], "content_block_stop");
                is_open = false;
            }
        }
    }
    assert_eq!(blocks[0]["thinking"], "Let me look.");
    assert_eq!(blocks[1]["text"], "I call.");
    for (block, arguments) in blocks[2..].iter().zip(arguments()) {
        assert_eq!(block["input"], json!({}));
        let input = block["partial_json"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(input).unwrap(), arguments);
    }
    assert_eq!(blocks.len(), 4);
    let [delta, stop] = &events[events.len() - 2..] else { panic!("{events:?}") };
    assert_eq!(delta["delta"]["stop_reason"], "tool_use");
    assert!(delta["usage"]["output_tokens"].as_u64().unwrap() > 0);
    assert_eq!(*stop, json!({"type": "message_stop"}));
}

/// Results of two calls and a further text in one message of the user.
#[test]
fn results_of_tools_find_their_calls() {
    let server = scripted(&[("weather?", CALLS), ("rainy", "Hm.<channel|>It rains.")]);
    let first = post(&server, body(json!({}))).json();
    let blocks = first["content"].as_array().unwrap();
    let result = |block: &Value, content: Value| {
        let id = &block["id"];
        json!({"type": "tool_result", "tool_use_id": id, "content": content})
    };
    let mut failed = result(&blocks[2], json!("not found"));
    failed["is_error"] = json!(true);
    let texts =
        json!([{"type": "text", "text": "rainy"}, {"type": "tool_reference", "tool_name": "t"}]);
    let messages = json!([
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": [failed, result(&blocks[3], texts)]},
    ]);
    let answer = post(&server, body(json!({"messages": messages})));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["content"][0]["thinking"], "Hm.");
    assert_eq!(answer["content"][1], json!({"type": "text", "text": "It rains."}));
    assert_eq!(answer["stop_reason"], "end_turn");
}

#[test]
fn the_billing_line_is_left_out() {
    let count = |server: &Server, system: Value| {
        let body = body(json!({"system": system, "tools": []}));
        let answer = block_on(server.post("/v1/messages/count_tokens", body.to_string()));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["input_tokens"].as_u64().unwrap()
    };
    let line = "x-anthropic-billing-header: cc_version=2.1.90.abc; cc_entrypoint=cli; cch=12345;";
    let block = |text: &str| json!({"type": "text", "text": text});
    let server = scripted(&[]);
    let plain = count(&server, json!("Be brief."));
    assert_eq!(count(&server, json!([block(line), block("Be brief.")])), plain);
    assert_eq!(count(&server, json!(format!("{line}\nBe brief."))), plain);
    let keep = ServerOptions { keep_billing_line: true, ..ServerOptions::default() };
    let keeping = scripted_with(&[], keep, SchedulerOptions::default());
    assert!(count(&keeping, json!([block(line), block("Be brief.")])) > plain);
}

#[test]
fn a_malformed_call_and_a_stop_text() {
    let server = scripted(&[("weather?", MALFORMED), ("count!", "one two three")]);
    let blocks = post(&server, body(json!({"tools": []}))).json()["content"].clone();
    assert_eq!(blocks[1]["text"], "call:sky{city:<|\"|>Paris");
    assert!(blocks[1]["malformed_tool_call"].is_string(), "{blocks}");
    let messages = json!([{"role": "user", "content": "count!"}]);
    let stop = json!({"messages": messages, "stop_sequences": ["three"], "thinking": null});
    let answer = post(&server, body(stop)).json();
    assert_eq!(answer["stop_reason"], "stop_sequence");
    assert_eq!(
        (&answer["stop_sequence"], &answer["content"][0]["text"]),
        (&json!("three"), &json!("one two "))
    );
    let short = json!({"messages": messages, "max_tokens": 1, "thinking": {"type": "disabled"}});
    assert_eq!(post(&server, body(short)).json()["stop_reason"], "max_tokens");
}

#[test]
fn errors_have_anthropics_form() {
    let options = ServerOptions { api_key: Some("k".into()), ..ServerOptions::default() };
    let locked = scripted_with(&[], options, SchedulerOptions::default());
    let answer = post(&locked, body(json!({})));
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["error"]["type"], "authentication_error");
    let server = scripted(&[]);
    let fault = |fields: Value, status: u16, kind: &str| {
        let answer = post(&server, body(fields));
        assert_eq!(answer.status, status, "{answer:?}");
        let error = answer.json();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)));
        assert!(error["error"]["message"].is_string());
    };
    let image = json!({"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x"}});
    let bad = "invalid_request_error";
    fault(json!({"messages": [{"role": "user", "content": [image]}]}), 400, bad);
    let file = json!({"type": "document", "source": {"type": "file", "file_id": "/etc/passwd"}});
    fault(json!({"messages": [{"role": "user", "content": [file]}]}), 400, bad);
    fault(json!({"messages": []}), 400, bad);
    fault(json!({"messages": "a"}), 400, bad);
    fault(json!({"max_tokens": 0}), 400, bad);
    fault(json!({"system": 3}), 400, bad);
    fault(json!({"tools": [{"input_schema": {}}]}), 400, bad);
    fault(json!({"tool_choice": {"type": "tool"}}), 400, bad);
    fault(json!({"model": "claude"}), 404, "not_found_error");
    let long = "word ".repeat(5000);
    let long = json!({"stream": true, "messages": [{"role": "user", "content": long}]});
    fault(long, 400, bad);
    assert_eq!(block_on(server.get("/v1/messages")).status, 405);
    assert_eq!(block_on(server.get("/v1/messages")).json()["type"], "error");
}
