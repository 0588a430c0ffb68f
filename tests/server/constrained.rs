//! Fields that choose single tokens: forms, biases, penalties, log probabilities, required calls.

use serde_json::{Value, json};

use crate::support::{Server, block_on, greedy, random_server, server};

/// The most turns of an agent at once.
const AGENTS: u64 = 4;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"word": {"type": "string", "maxLength": 6}, "size": {"enum": [1, 2, 3]}},
        "required": ["word", "size"],
        "additionalProperties": false,
    })
}

fn assert_fits(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(value["word"].as_str().unwrap().chars().count() <= 6, "{value}");
    assert!([1, 2, 3].contains(&value["size"].as_i64().unwrap()), "{value}");
}

#[test]
fn every_dialect_answers_by_a_schema() {
    let server = server();
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema()}});
    let flat = json!({"type": "json_schema", "name": "x", "schema": schema()});
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let random = json!({"response_format": format, "temperature": 2.0, "top_k": 0});
    block_on(async {
        for seed in 0..3 {
            let mut body = greedy("Hello", 200, random.clone());
            body["seed"] = json!(seed);
            let answer = server.chat(body.clone()).await.json();
            assert_fits(answer["choices"][0]["message"]["content"].as_str().unwrap());
            assert_eq!(answer["choices"][0]["finish_reason"], "stop");
            body["stream"] = json!(true);
            let events = server.chat(body).await.events();
            let text = events.iter().filter_map(|it| it["choices"][0]["delta"]["content"].as_str());
            assert_fits(&text.collect::<String>());
        }
        let body = json!({"prompt": "Once", "max_tokens": 200, "json_schema": schema()});
        let answer = server.complete(body).await.json();
        assert_fits(answer["choices"][0]["text"].as_str().unwrap());
        let body = json!({"input": "Hello", "max_output_tokens": 200, "text": {"format": flat}});
        let answer = server.post("/v1/responses", body.to_string()).await.json();
        assert_fits(answer["output"][0]["content"][0]["text"].as_str().unwrap());
        let body = json!({
            "model": "demo", "messages": messages, "max_tokens": 200,
            "output_config": {"format": flat},
        });
        let answer = server.post("/v1/messages", body.to_string()).await.json();
        assert_fits(answer["content"][0]["text"].as_str().unwrap());
        let mut body = json!({"model": "demo", "messages": messages, "stream": false});
        body["format"] = schema();
        let answer = server.post("/api/chat", body.to_string()).await.json();
        assert_fits(answer["message"]["content"].as_str().unwrap());
        let mut body = json!({"model": "demo", "prompt": "Hello", "stream": false});
        body["format"] = schema();
        let answer = server.post("/api/generate", body.to_string()).await.json();
        assert_fits(answer["response"].as_str().unwrap());
    });
}

#[test]
fn grammars_limit_all_choices() {
    let server = server();
    let more = json!({"grammar": "root ::= \"yes\" | \"no\"", "n": 4, "temperature": 3.0});
    let answer = block_on(server.chat(greedy("Hello", 9, more))).json();
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    for choice in choices {
        assert!(["yes", "no"].contains(&choice["message"]["content"].as_str().unwrap()));
    }
}

#[test]
fn log_probabilities_are_listed() {
    let server = server();
    let plain = block_on(server.chat(greedy("Hello", 6, json!({})))).json();
    assert!(plain["choices"][0]["logprobs"].is_null());
    let more = json!({"logprobs": true, "top_logprobs": 3});
    let answer = block_on(server.chat(greedy("Hello", 6, more.clone()))).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], plain["choices"][0]["message"]["content"]);
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    for entry in content {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // The likeliest was chosen.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&entry["token"], &entry["logprob"]));
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
    }
    let text: String = content.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert_eq!(text.trim(), choice["message"]["content"].as_str().unwrap().trim());
    let mut streamed = greedy("Hello", 6, more);
    streamed["stream"] = json!(true);
    let events = block_on(server.chat(streamed)).events();
    let listed = events.iter().filter_map(|it| it["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(listed.flatten().collect::<Vec<_>>(), content.iter().collect::<Vec<_>>());
    let body = json!({"prompt": "Once", "max_tokens": 5, "temperature": 0, "logprobs": 2});
    let answer = block_on(server.complete(body)).json();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 5);
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);
    assert_eq!(logprobs["text_offset"][0], 0);
}

#[test]
fn biases_and_penalties_have_an_effect() {
    let server = server();
    let content = json!({"content": "x"}).to_string();
    let tokens = block_on(server.post("/tokenize", content)).json()["tokens"].clone();
    let id = tokens.as_array().unwrap().last().unwrap().to_string();
    let mut bias = serde_json::Map::new();
    bias.insert(id, json!(100));
    let more = json!({"logit_bias": bias});
    let answer = block_on(server.chat(greedy("Hello", 5, more))).json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(content.replace(' ', ""), "xxxxx");
    let more = json!({"presence_penalty": 2, "frequency_penalty": 2, "repeat_penalty": 1.5});
    let changed = block_on(server.chat(greedy("Hello", 60, more))).json();
    let plain = block_on(server.chat(greedy("Hello", 60, json!({})))).json();
    assert_ne!(changed["choices"][0]["message"], plain["choices"][0]["message"]);
}

fn tools() -> Value {
    let tool = |name: &str, parameters: Value| {
        let function = json!({"name": name, "description": "A tool.", "parameters": parameters});
        json!({"type": "function", "function": function})
    };
    json!([
        tool(
            "weather",
            json!({
                "type": "object",
                "properties": {
                    "place": {"type": "string", "maxLength": 4},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                },
                "required": ["place"],
            })
        ),
        tool(
            "add",
            json!({
                "type": "object",
                "properties": {"numbers": {
                    "type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2,
                }},
                "required": ["numbers"],
            })
        ),
    ])
}

/// The calls of an answer, checked.
fn calls(message: &Value) -> Vec<(String, String)> {
    assert!(message.get("malformed_tool_call").is_none(), "{message}");
    let calls = message["tool_calls"].as_array().unwrap_or_else(|| panic!("no calls: {message}"));
    let checked = calls.iter().map(|call| {
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        let name = call["function"]["name"].as_str().unwrap();
        match name {
            "weather" => assert!(arguments["place"].as_str().unwrap().chars().count() <= 4),
            "add" => assert_eq!(arguments["numbers"].as_array().unwrap().len(), 2),
            other => panic!("no such tool: {other}"),
        }
        (call["id"].as_str().unwrap().to_owned(), name.to_owned())
    });
    checked.collect()
}

/// One agent: a call, a call of a given tool, and an answer by a schema.
async fn agent(server: &Server, seed: u64) {
    let mut messages = vec![json!({"role": "user", "content": format!("Task {seed}")})];
    let add = json!({"type": "function", "function": {"name": "add"}});
    for (turn, choice) in [(0, json!("required")), (1, add), (2, json!("none"))] {
        let mut body = json!({
            "messages": messages, "tools": tools(), "tool_choice": choice, "seed": seed + turn,
            "temperature": 1.0, "top_k": 0, "top_p": 1, "max_tokens": 300,
            "parallel_tool_calls": false,
        });
        if turn == 2 {
            body["response_format"] =
                json!({"type": "json_schema", "json_schema": {"schema": schema()}});
        }
        let answer = server.chat(body).await.json();
        let choice = &answer["choices"][0];
        let message = choice["message"].clone();
        if turn == 2 {
            assert_eq!(choice["finish_reason"], "stop");
            return assert_fits(message["content"].as_str().unwrap());
        }
        assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
        let calls = calls(&message);
        assert_eq!(calls.len(), 1);
        assert!(turn == 0 || calls[0].1 == "add");
        messages.push(message);
        messages.push(json!({"role": "tool", "tool_call_id": calls[0].0, "content": "7"}));
    }
}

#[test]
fn agents_of_two_tools_always_end() {
    let server = random_server();
    block_on(async {
        for first in (0..200).step_by(AGENTS as usize) {
            let agents = (first..first + AGENTS).map(|seed| agent(&server, seed));
            futures_util::future::join_all(agents).await;
        }
        server.wait_until_idle().await;
    });
}
