//! `/api/…`

use serde_json::{Value, json};

use super::{CALLS, arguments, schema};
use crate::support::{Answer, Server, block_on, scripted};

fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "demo:latest",
        "messages": [{"role": "user", "content": "weather?"}],
        "tools": [
            {"type": "function", "function": {"name": "sky", "parameters": schema()}},
            {"type": "function", "function": {"name": "list"}},
        ],
        "think": true,
        "options": {"temperature": 0, "num_predict": -1, "num_ctx": 4096, "repeat_penalty": 1.0},
        "keep_alive": "5m",
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn post(server: &Server, path: &str, body: Value) -> Answer {
    block_on(server.post(path, body.to_string()))
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_chat_is_streamed_in_lines() {
    let server = scripted(&[("weather?", CALLS), ("rainy", "Hm.<channel|>It rains.")]);
    let lines = lines(&post(&server, "/api/chat", body(json!({}))));
    let joined = |name: &str| -> String {
        lines.iter().filter_map(|line| line["message"][name].as_str()).collect()
    };
    assert!(lines.iter().all(|line| line["message"]["role"] == "assistant"));
    assert!(lines.iter().all(|line| line["created_at"].is_string() && line["model"] == "demo"));
    assert_eq!((joined("content"), joined("thinking")), ("I call.".into(), "Let me look.".into()));
    let calls: Vec<&Value> = lines
        .iter()
        .filter_map(|line| line["message"]["tool_calls"].as_array())
        .flatten()
        .collect();
    assert_eq!(calls.len(), 2);
    for (call, arguments) in calls.iter().zip(arguments()) {
        assert_eq!(call["function"]["arguments"], arguments);
    }
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    assert!(last["prompt_eval_count"].as_u64().unwrap() > 0 && last["total_duration"].is_u64());
    assert_eq!(lines.iter().filter(|line| line["done"] == true).count(), 1);
    // The results come back by the name of the tool, in order.
    let whole = post(&server, "/api/chat", body(json!({"stream": false}))).json();
    assert_eq!(whole["message"]["thinking"], "Let me look.");
    let messages = json!([
        {"role": "user", "content": "weather?"},
        whole["message"],
        {"role": "tool", "tool_name": "sky", "content": "sunny"},
        {"role": "tool", "tool_name": "list", "content": "rainy"},
    ]);
    let answer = post(&server, "/api/chat", body(json!({"messages": messages, "stream": false})));
    assert_eq!(answer.json()["message"]["content"], "It rains.", "{answer:?}");
}

#[test]
fn a_prompt_is_completed() {
    let server = scripted(&[("count!", "one two three")]);
    let ask = |more: Value| {
        let mut body = json!({"model": "demo", "prompt": "count!", "stream": false});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        post(&server, "/api/generate", body)
    };
    let answer = ask(json!({"system": "Be brief.", "options": {"stop": ["three"]}})).json();
    assert_eq!((&answer["response"], &answer["done"]), (&json!("one two "), &json!(true)));
    assert_eq!(ask(json!({"raw": true})).json()["response"], "one two three");
    let short = ask(json!({"options": {"num_predict": 1}})).json();
    assert_eq!(short["done_reason"], "length");
    assert_eq!(ask(json!({"prompt": ""})).json()["done_reason"], "load");
    let pieces = lines(&ask(json!({"stream": true})));
    let text: String = pieces.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!(text, "one two three");
    for fields in [json!({"suffix": "x"}), json!({"images": ["aGk="]}), json!({"think": 3})] {
        let answer = ask(fields);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["error"].is_string());
    }
}

#[test]
fn the_model_is_described() {
    let server = scripted(&[]);
    assert!(block_on(server.get("/api/version")).json()["version"].is_string());
    let tags = block_on(server.get("/api/tags")).json();
    assert_eq!(tags["models"][0]["name"], "demo");
    assert_eq!(block_on(server.get("/api/ps")).json()["models"][0]["context_length"], 4096);
    let show = post(&server, "/api/show", json!({"model": "demo"})).json();
    assert_eq!(show["capabilities"], json!(["completion", "tools", "thinking"]));
    assert_eq!(show["model_info"]["gemma4.context_length"], 4096);
    let unknown = post(&server, "/api/show", json!({"model": "other"}));
    assert_eq!(unknown.status, 404);
    assert!(unknown.json()["error"].as_str().unwrap().contains("other"));
    assert_eq!(post(&server, "/api/chat", json!({"messages": []})).status, 400);
    let load = post(&server, "/api/chat", json!({"model": "demo"})).json();
    assert_eq!(load["done_reason"], "load");
    let embed = post(&server, "/api/embed", json!({"model": "demo", "input": "a"}));
    assert!(embed.json()["error"].as_str().unwrap().contains("embeddings"));
}
