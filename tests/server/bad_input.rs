//! Requests that the server must refuse: 4xx in OpenAI's form, with a reason.

use axum::body::Body;
use axum::http::{Method, Request};
use gemma4_wgpu::generate::SchedulerOptions;
use gemma4_wgpu::server::ServerOptions;
use serde_json::{Value, json};

use crate::support::{Answer, CONTEXT, block_on, greedy, server, server_with};

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = &answer.json()["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(reason), "{message:?} lacks {reason:?}");
    assert!(error["type"].is_string() && error.get("param").is_some());
    assert!(error.get("code").is_some());
}

#[test]
fn bodies_that_are_no_requests() {
    let server = server();
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"\"text\"",
        b"{\"messages\": [}",
        b"{\"messages\": \"\xff\"}",
        b"null",
        b"{\"temperature\": NaN}",
        deep.as_bytes(),
    ];
    for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"] {
        for body in bodies {
            assert_refused(&block_on(server.post(path, body.to_vec())), 400, "the body is no JSON");
        }
    }
}

fn schema(schema: Value) -> Value {
    json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})
}

#[test]
fn fields_of_wrong_types_and_ranges() {
    let server = server();
    let cases = [
        (json!({"temperature": "hot"}), "temperature must be"),
        (json!({"temperature": -1}), "temperature must be"),
        (json!({"temperature": 1e300}), "temperature must be"),
        (json!({"top_p": 1.5}), "top_p must be"),
        (json!({"top_k": -3}), "top_k must be"),
        (json!({"top_k": 1.5}), "top_k must be"),
        (json!({"min_p": []}), "min_p must be"),
        (json!({"repetition_penalty": 0}), "repetition_penalty must be"),
        (json!({"seed": 1.5}), "seed must be"),
        (json!({"n": 0}), "n must be"),
        (json!({"n": 1e9}), "n must be"),
        (json!({"max_tokens": 0}), "max_tokens must be"),
        (json!({"max_tokens": -1}), "max_tokens must be"),
        (json!({"max_completion_tokens": "many"}), "max_completion_tokens must be"),
        (json!({"stop": {"a": 1}}), "stop must be"),
        (json!({"stop": [1]}), "stop must be"),
        (json!({"stop": vec!["x"; 100]}), "stop has 100 texts"),
        (json!({"stop": "x".repeat(5000)}), "a text of stop"),
        (json!({"stream": "yes"}), "stream must be"),
        (json!({"stream_options": 1}), "stream_options must be"),
        (json!({"model": 7}), "model must be"),
        (json!({"messages": null}), "messages is missing"),
        (json!({"messages": {}}), "messages must be"),
        (json!({"messages": []}), "messages is empty"),
        (json!({"messages": [3]}), "messages[0] must be"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "wizard", "content": "x"}]}), "is no role"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "image_url"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "no call before it"),
        (json!({"messages": [{"role": "assistant", "tool_calls": [{}]}]}), "tool_calls"),
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (json!({"response_format": {"type": "yaml"}}), "\"yaml\" is none of text"),
        (json!({"response_format": {"type": "json_schema"}}), "but no schema"),
        (json!({"response_format": 1}), "response_format must be"),
        (schema(json!({"type": "strong"})), "strong"),
        (schema(json!({"type": "string", "pattern": "(?=a)"})), "the grammar cannot be used"),
        (schema(json!({"type": "array", "uniqueItems": true})), "uniqueItems"),
        (json!({"json_schema": 5}), "must be an object"),
        (json!({"grammar": "root ::= x"}), "the rule x is missing"),
        (json!({"grammar": "start: x"}), "the grammar cannot be used"),
        (json!({"grammar": "a", "json_schema": {}}), "only one of response_format"),
        (json!({"tool_choice": "required"}), "a call of no tools"),
        (json!({"logprobs": 2}), "logprobs must be"),
        (json!({"top_logprobs": 2}), "top_logprobs needs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs must be"),
        (json!({"logit_bias": {"1": 500}}), "logit_bias must map"),
        (json!({"logit_bias": {"one": 5}}), "logit_bias must map"),
        (json!({"presence_penalty": 3}), "presence_penalty must be"),
        (json!({"frequency_penalty": "x"}), "frequency_penalty must be"),
        (json!({"reasoning_effort": "huge"}), "reasoning_effort"),
        (json!({"chat_template_kwargs": {"enable_thinking": 1}}), "enable_thinking must be"),
    ];
    for (fields, reason) in cases {
        let answer = block_on(server.chat(greedy("Hello", 2, fields.clone())));
        assert_refused(&answer, 400, reason);
        let mut streamed = greedy("Hello", 2, fields);
        if !streamed["stream"].is_string() {
            streamed["stream"] = json!(true);
        }
        assert_refused(&block_on(server.chat(streamed)), 400, reason);
    }
}

#[test]
fn completions_that_make_no_sense() {
    let server = server();
    let cases = [
        (json!({}), "prompt is missing"),
        (json!({"prompt": 5}), "prompt must be"),
        (json!({"prompt": [1, "a"]}), "prompt must be"),
        (json!({"prompt": [1, -1]}), "prompt must be"),
        (json!({"prompt": [[]]}), "the prompt has no tokens"),
        (json!({"prompt": []}), "the prompt has no tokens"),
        (json!({"prompt": [4_000_000]}), "not in the vocabulary"),
        (json!({"prompt": vec!["x"; 65]}), "more than 64 prompts"),
        (json!({"prompt": "x", "echo": true}), "echo"),
        (json!({"prompt": "x", "suffix": "y"}), "suffix"),
        (json!({"prompt": "x", "best_of": 4}), "best_of"),
        (json!({"prompt": "x", "logprobs": 21}), "logprobs must be"),
    ];
    for (body, reason) in cases {
        assert_refused(&block_on(server.complete(body)), 400, reason);
    }
    for (path, body, reason) in [
        ("/tokenize", json!({}), "content is missing"),
        ("/tokenize", json!({"content": 1}), "content must be"),
        ("/detokenize", json!({"tokens": "x"}), "tokens must be"),
        ("/detokenize", json!({"tokens": [1.5]}), "tokens must be"),
        ("/detokenize", json!({"tokens": [4_000_000_000u32]}), "not in the vocabulary"),
    ] {
        assert_refused(&block_on(server.post(path, body.to_string())), 400, reason);
    }
}

#[test]
fn prompts_beyond_the_context() {
    let server = server();
    for stream in [false, true] {
        let body = greedy(&"word ".repeat(CONTEXT), 2, json!({"stream": stream}));
        let answer = block_on(server.chat(body));
        assert_refused(&answer, 400, "but the context holds 512");
        assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
    }
}

#[test]
fn paths_methods_and_models() {
    let server = server();
    assert_refused(&block_on(server.get("/v1/nothing")), 404, "no such path");
    let answer = block_on(server.get("/v1/chat/completions"));
    assert_refused(&answer, 405, "does not take GET");
    assert_eq!(answer.headers["allow"], "POST");
    let request = Request::builder().method(Method::DELETE).uri("/v1/models");
    let answer = block_on(server.send(request.body(Body::empty()).unwrap()));
    assert_refused(&answer, 405, "does not take DELETE");
    let answer = block_on(server.chat(greedy("Hello", 2, json!({"model": "gpt-9"}))));
    assert_refused(&answer, 404, "is not loaded");
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
    assert_refused(&block_on(server.get("/v1/models/gpt-9")), 404, "is not loaded");
}

#[test]
fn bodies_and_keys() {
    let options = ServerOptions {
        api_key: Some("sesame".into()),
        max_body_bytes: 1000,
        aliases: vec!["other".into()],
        ..ServerOptions::default()
    };
    let server = server_with(options, SchedulerOptions::default());
    let body = greedy("Hello", 2, json!({"model": "other"})).to_string();
    let send = |name: &str, value: &str, body: &str| {
        let request = Request::post("/v1/chat/completions").header(name, value);
        block_on(server.send(request.body(Body::from(body.to_owned())).unwrap()))
    };
    let answer = send("authorization", "Bearer wrong", &body);
    assert_refused(&answer, 401, "API key");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    assert_refused(&block_on(server.chat(json!({}))), 401, "API key");
    assert_refused(&send("authorization", "sesame", &body), 401, "API key");
    assert_eq!(send("authorization", "Bearer sesame", &body).status, 200);
    assert_eq!(send("x-api-key", "sesame", &body).status, 200);
    assert_eq!(block_on(server.get("/health")).status, 200);
    let large = greedy(&"x".repeat(2000), 2, json!({})).to_string();
    assert_refused(&send("x-api-key", "sesame", &large), 413, "larger than 1000 bytes");
}

/// Values of all JSON types in each field: never a fault of the server.
#[test]
fn absurd_values_are_never_the_servers_fault() {
    let server = server();
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1e308),
        json!(""),
        json!("\u{0}\u{fffd}<|turn>"),
        json!([]),
        json!([null, {}]),
        json!({}),
        json!({"type": {"type": []}}),
    ];
    let names = [
        "model",
        "messages",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "n",
        "stream",
        "stream_options",
        "max_completion_tokens",
        "tools",
        "tool_choice",
        "logit_bias",
        "logprobs",
        "response_format",
        "reasoning_effort",
        "chat_template_kwargs",
    ];
    block_on(async {
        for name in names {
            for value in &values {
                let mut body = greedy("Hi", 1, json!({}));
                body[name] = value.clone();
                let answer = server.chat(body).await;
                assert!(answer.status.as_u16() < 500, "{name} {value}: {answer:?}");
                body = json!({"prompt": "Hi", "max_tokens": 1});
                body[if name == "messages" { "prompt" } else { name }] = value.clone();
                let answer = server.complete(body).await;
                assert!(answer.status.as_u16() < 500, "{name} {value}: {answer:?}");
            }
        }
    });
    block_on(server.wait_until_idle());
    let answer = block_on(server.chat(greedy("Hello", 2, Value::Object(Default::default()))));
    assert_eq!(answer.status, 200);
}
