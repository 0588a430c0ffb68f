//! Endpoints about the server and its tokenizer.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::support::{CONTEXT, SLOTS, block_on, greedy, server};

#[test]
fn models_and_properties() {
    let server = server();
    let models = block_on(server.get("/v1/models")).json();
    let model = &models["data"][0];
    assert_eq!((&model["id"], &model["object"]), (&json!("demo"), &json!("model")));
    assert_eq!(model["meta"]["n_ctx"], CONTEXT);
    assert_eq!(model["architecture"]["input_modalities"], json!(["text"]));
    assert_eq!(&block_on(server.get("/v1/models/demo")).json(), model);
    let props = block_on(server.get("/props")).json();
    assert_eq!(props["total_slots"], SLOTS);
    assert_eq!(props["default_generation_settings"]["n_ctx"], CONTEXT);
    assert!(props["chat_template"].as_str().unwrap().contains("<|turn>"));
    assert_eq!(block_on(server.get("/health")).json(), json!({"status": "ok"}));
    let head = Request::head("/v1/models").body(Body::empty()).unwrap();
    assert_eq!(block_on(server.send(head)).status, 200);
}

#[test]
fn texts_and_tokens() {
    let server = server();
    let post = |path, body: serde_json::Value| block_on(server.post(path, body.to_string())).json();
    let text = "Once upon a time, ünïcödé <|turn>";
    let tokens = |fields: serde_json::Value| {
        let mut body = fields;
        body["content"] = json!(text);
        post("/tokenize", body)["tokens"].as_array().unwrap().clone()
    };
    let (parsed, plain) = (tokens(json!({})), tokens(json!({"parse_special": false})));
    assert!(parsed.len() < plain.len(), "a control token is one token");
    assert_eq!(tokens(json!({"add_special": true})).len(), parsed.len() + 1);
    assert_eq!(post("/detokenize", json!({"tokens": plain}))["content"], text);
}

#[test]
fn figures_for_prometheus() {
    let server = server();
    let answer = block_on(server.chat(greedy("Hello", 3, json!({}))));
    assert_eq!(answer.status, 200);
    let prompt = answer.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    block_on(server.wait_until_idle());
    let answer = block_on(server.get("/metrics"));
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"));
    let figure = |name: &str| {
        let line = answer.body.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {}", answer.body));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(figure("gemma4_wgpu_prompt_tokens_total"), prompt as f64);
    assert_eq!(figure("gemma4_wgpu_generated_tokens_total"), 3.0);
    assert_eq!(figure("gemma4_wgpu_requests_total{status=\"200\"}"), 1.0);
    assert_eq!(figure("gemma4_wgpu_time_to_first_token_seconds_count"), 1.0);
    assert_eq!(figure("gemma4_wgpu_sequences_running"), 0.0);
    assert!(answer.body.ends_with("# EOF\n"));
}

#[test]
fn a_clients_request_id_comes_back() {
    let server = server();
    let request = Request::get("/health").header("x-request-id", "mine-7");
    let answer = block_on(server.send(request.body(Body::empty()).unwrap()));
    assert_eq!(answer.headers["x-request-id"], "mine-7");
}
