//! Chats and completions.

use std::num::NonZeroUsize;

use futures_util::future::join_all;
use gemma4_wgpu::backend::BackendKind;
use gemma4_wgpu::{ChatOptions, Message, Model, ModelOptions};
use serde_json::{Value, json};

use crate::support::{block_on, greedy, server};

const PROMPTS: [&str; 7] = [
    "Once upon a time",
    "The sea",
    "What is a house?",
    "Tell me about the king and his three daughters, who lived by the river",
    "a",
    "Winter came early that year",
    "Who are you?",
];

/// The library's own answer with the likeliest tokens.
fn alone(prompt: &str, tokens: usize) -> String {
    let options = ModelOptions { backend: BackendKind::Cpu, ..ModelOptions::default() };
    let mut model = Model::open_with("demo", &options).unwrap();
    let options = ChatOptions {
        temperature: Some(0.0),
        max_new_tokens: NonZeroUsize::new(tokens),
        ..ChatOptions::default()
    };
    model.chat(&[Message::user(prompt)], &options).unwrap().text().unwrap()
}

#[test]
fn a_chat_is_answered() {
    let server = server();
    let answer = block_on(server.chat(greedy(PROMPTS[0], 12, json!({}))));
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!((&json["object"], &json["model"]), (&json!("chat.completion"), &json!("demo")));
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], alone(PROMPTS[0], 12));
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()));
    let usage = &json["usage"];
    let total =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
    assert!(answer.headers.contains_key("x-request-id"));
}

#[test]
fn a_stream_has_the_chunks_of_openai() {
    let server = server();
    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "n": 2});
    let answer = block_on(server.chat(greedy(PROMPTS[0], 12, more)));
    assert_eq!(answer.headers["x-accel-buffering"], "no");
    assert_eq!(answer.headers["cache-control"], "no-cache");
    let events = answer.events();
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!((&event["id"], &event["model"]), (&events[0]["id"], &json!("demo")));
        assert!(event["created"].is_u64() && event["choices"].is_array());
    }
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 24);
    for index in 0..2 {
        let choices = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
        let choices: Vec<&Value> = choices.filter(|choice| choice["index"] == index).collect();
        assert_eq!(choices[0]["delta"]["role"], "assistant");
        let text: String =
            choices.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, alone(PROMPTS[0], 12));
        let ends = choices.iter().filter(|choice| choice["finish_reason"] == "length").count();
        assert_eq!((ends, &choices.last().unwrap()["finish_reason"]), (1, &json!("length")));
    }
}

/// More requests than slots, some streamed.
#[test]
fn answers_at_once_are_those_of_each_alone() {
    let server = server();
    let requests = PROMPTS.iter().enumerate().map(|(number, prompt)| {
        let stream = number % 2 == 0;
        let request = server.chat(greedy(prompt, 10, json!({"stream": stream})));
        async move {
            let answer = request.await;
            if !stream {
                return answer.json()["choices"][0]["message"]["content"].as_str().unwrap().into();
            }
            let events = answer.events();
            let content = |event: &Value| {
                event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
            };
            events.iter().map(content).collect::<String>()
        }
    });
    let answers = block_on(join_all(requests));
    for (prompt, answer) in PROMPTS.iter().zip(answers) {
        assert_eq!(answer, alone(prompt, 10), "{prompt}");
    }
    assert_eq!(block_on(server.wait_until_idle()).cancelled, 0);
}

#[test]
fn a_seed_repeats_an_answer() {
    let server = server();
    let ask = |seed| {
        let fields = json!({"temperature": 3, "seed": seed, "top_p": 1, "top_k": 40, "n": 2});
        let answer = block_on(server.chat(greedy(PROMPTS[1], 12, fields))).json();
        [0, 1].map(|index| answer["choices"][index]["message"]["content"].clone())
    };
    let first = ask(7);
    assert_eq!(first, ask(7));
    assert_ne!(first, ask(8));
    assert_ne!(first[0], first[1], "the answers to one prompt differ");
}

#[test]
fn a_stop_text_ends_an_answer() {
    let server = server();
    let whole = alone(PROMPTS[0], 24);
    // A word from the middle of the answer.
    let words: Vec<&str> = whole.split_whitespace().collect();
    let stop = words[words.len() / 2];
    let before = &whole[..whole.find(stop).unwrap()];
    let fields = json!({"stop": [stop, "no such text"]});
    let answer = block_on(server.chat(greedy(PROMPTS[0], 24, fields))).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], before);
    assert_eq!(choice["finish_reason"], "stop");
}

#[test]
fn messages_of_all_forms() {
    let server = server();
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "Hello"}, {"type": "text", "text": "!"},
        ]},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
        ]},
        {"role": "assistant", "content": "Hi", "refusal": null},
        {"role": "user", "content": "Bye", "name": "someone"},
    ]);
    let fields = json!({
        "messages": messages, "tools": [], "user": "u", "store": false, "metadata": {},
        "response_format": {"type": "text"}, "logprobs": false, "presence_penalty": 0,
        "frequency_penalty": 0.0, "logit_bias": {}, "reasoning_effort": "low",
        "max_tokens": null, "max_completion_tokens": 3, "seed": -1, "no_such_field": [1],
    });
    let answer = block_on(server.chat(greedy("", 1, fields)));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["usage"]["completion_tokens"].as_u64().unwrap() <= 3);
}

#[test]
fn completions_of_texts_and_tokens() {
    let server = server();
    let content = json!({"content": "Once upon a time", "add_special": true}).to_string();
    let tokens = block_on(server.post("/tokenize", content)).json()["tokens"].clone();
    let text = |prompt: Value| {
        let body = json!({"prompt": prompt, "temperature": 0, "max_tokens": 8});
        let answer = block_on(server.complete(body)).json();
        assert_eq!(answer["object"], "text_completion");
        let choices = answer["choices"].as_array().unwrap().clone();
        choices.iter().map(|choice| choice["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let one = text(json!("Once upon a time"));
    assert!(!one[0].is_empty());
    assert_eq!(text(tokens.clone()), one);
    let other = text(json!("The sea"));
    assert_eq!(
        text(json!(["Once upon a time", "The sea"])),
        [&one[0], &other[0]].map(String::clone)
    );
    assert_eq!(text(json!([tokens])), one);
    let body =
        json!({"prompt": "Once upon a time", "temperature": 0, "max_tokens": 8, "stream": true});
    let events = block_on(server.complete(body)).events();
    let streamed: String =
        events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(streamed, one[0]);
}
