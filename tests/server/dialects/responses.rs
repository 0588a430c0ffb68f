//! `/v1/responses`

use serde_json::{Value, json};

use super::{CALLS, MALFORMED, arguments, schema};
use crate::support::{Answer, Server, block_on, scripted};

fn tools() -> Value {
    json!([
        {"type": "function", "name": "sky", "parameters": schema(), "strict": false},
        {"type": "function", "name": "list", "description": "d"},
        {"type": "custom", "name": "patch", "description": "p",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}},
        {"type": "namespace", "name": "mail", "tools": [{"type": "function", "name": "send"}]},
        {"type": "web_search"}, {"type": "local_shell"}, {"type": "no_such_type"},
    ])
}

fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "demo",
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "developer", "content": [
                {"type": "input_text", "text": "Also this."}]},
            {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        ],
        "tools": tools(),
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "temperature": 0,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn post(server: &Server, body: Value) -> Answer {
    block_on(server.post("/v1/responses", body.to_string()))
}

#[test]
fn a_response_has_items() {
    let server = scripted(&[("weather?", CALLS)]);
    let answer = post(&server, body(json!({})));
    assert_eq!(answer.status, 200, "{answer:?}");
    let response = answer.json();
    assert_eq!(
        (&response["object"], &response["status"]),
        (&json!("response"), &json!("completed"))
    );
    let output = response["output"].as_array().unwrap();
    let kinds: Vec<&Value> = output.iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call", "function_call"]);
    assert_eq!(output[0]["content"][0]["text"], "Let me look.");
    assert_eq!(output[1]["content"][0]["text"], "I call.");
    for (item, arguments) in output[2..].iter().zip(arguments()) {
        let text = item["arguments"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), arguments);
        assert!(item["call_id"].is_string() && item["id"] != item["call_id"]);
    }
    let usage = &response["usage"];
    assert!(usage["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0);
    let counted = block_on(server.post("/v1/responses/input_tokens", body(json!({})).to_string()));
    assert_eq!(counted.json()["input_tokens"], usage["input_tokens"]);
}

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

/// What a client joins from the events is what the last one repeats.
#[test]
fn a_stream_has_the_events_of_openai() {
    let server = scripted(&[("weather?", CALLS)]);
    let events = events(&post(&server, body(json!({"stream": true}))));
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events[0]["response"]["output"], json!([]));
    assert_eq!(events[1]["type"], "response.in_progress");
    let mut output: Vec<Value> = Vec::new();
    for event in &events[2..events.len() - 1] {
        let at = event["output_index"].as_u64().unwrap() as usize;
        match event["type"].as_str().unwrap() {
            "response.output_item.added" => {
                assert_eq!(at, output.len());
                output.push(event["item"].clone());
            }
            "response.content_part.added" => {
                assert_eq!(event["content_index"], 0);
                output[at]["content"] = json!([event["part"]]);
            }
            "response.output_text.delta" | "response.reasoning_text.delta" => {
                assert_eq!(event["item_id"], output[at]["id"]);
                let text = &mut output[at]["content"][0]["text"];
                *text = json!(text.as_str().unwrap().to_owned() + event["delta"].as_str().unwrap());
            }
            "response.function_call_arguments.delta" => {
                let text = &mut output[at]["arguments"];
                *text = json!(text.as_str().unwrap().to_owned() + event["delta"].as_str().unwrap());
            }
            "response.output_item.done" => {
                output[at]["status"] = json!("completed");
                let mut done = event["item"].clone();
                done.as_object_mut().unwrap().remove("encrypted_content");
                assert_eq!(done, output[at]);
                output[at] = event["item"].clone();
            }
            kind => assert!(kind.ends_with(".done"), "{kind}"),
        }
    }
    let last = &events[events.len() - 1];
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["output"], json!(output));
    assert!(last["response"]["usage"]["total_tokens"].as_u64().unwrap() > 0);
}

#[test]
fn custom_tools_and_namespaces_are_functions_for_the_model() {
    let calls = "<|tool_call>call:patch{input:<|\"|>*** Begin\n\"x\"<|\"|>}<tool_call|>\
        <|tool_call>call:mail.send{to:1}<tool_call|>";
    let server = scripted(&[("weather?", calls), ("sent it", "Done.")]);
    let response = post(&server, body(json!({}))).json();
    let output = response["output"].as_array().unwrap();
    assert_eq!(
        (&output[0]["type"], &output[0]["name"]),
        (&json!("custom_tool_call"), &json!("patch"))
    );
    assert_eq!(output[0]["input"], "*** Begin\n\"x\"");
    assert_eq!((&output[1]["namespace"], &output[1]["name"]), (&json!("mail"), &json!("send")));
    let stream = events(&post(&server, body(json!({"stream": true}))));
    let input: String = stream
        .iter()
        .filter(|event| event["type"] == "response.custom_tool_call_input.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(input, "*** Begin\n\"x\"");
    // All items come back, with results as texts and as lists.
    let mut input = vec![json!({"role": "user", "content": "weather?"})];
    input.push(json!({"type": "reasoning", "id": "rs_1", "summary": [],
        "encrypted_content": "plain:Hm."}));
    input.extend(output.iter().cloned());
    let texts = json!([{"type": "input_text", "text": "sent it"}]);
    for (item, result) in output.iter().zip([json!("ok"), texts]) {
        let kind = format!("{}_output", item["type"].as_str().unwrap());
        input.push(json!({"type": kind, "call_id": item["call_id"], "output": result}));
    }
    input.insert(1, json!({"type": "unknown_item", "x": 1}));
    let answer = post(&server, body(json!({"input": input})));
    assert_eq!(answer.status, 200, "{answer:?}");
    let last = answer.json()["output"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["content"][0]["text"], "Done.");
}

#[test]
fn a_response_may_be_incomplete_or_malformed() {
    let server = scripted(&[("weather?", MALFORMED), ("count!", "one two three")]);
    let output = post(&server, body(json!({"tools": []}))).json()["output"].clone();
    assert!(output[1]["malformed_tool_call"].is_string(), "{output}");
    let short = json!({"input": "count!", "max_output_tokens": 1, "stream": true});
    let events = events(&post(&server, body(short)));
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

#[test]
fn faults_are_named() {
    let server = scripted(&[]);
    let reference = json!([{"type": "item_reference", "id": "msg_1"}]);
    let output = json!([{"type": "function_call_output", "call_id": "c", "output": "r"}]);
    let image = json!([{"role": "user", "content": [
        {"type": "input_image", "image_url": "http://127.0.0.1/"}]}]);
    let faults = [
        (json!({"input": null}), "missing"),
        (json!({"input": []}), "empty"),
        (json!({"input": 3}), "input"),
        (json!({"input": reference}), "stores no items"),
        (json!({"input": output}), "no call before it"),
        (json!({"input": image}), "input_image"),
        (json!({"input": [{"role": "king", "content": "a"}]}), "king"),
        (json!({"previous_response_id": "resp_1"}), "stores nothing"),
        (json!({"background": true}), "background"),
        (json!({"reasoning": {"effort": "huge"}}), "huge"),
        (json!({"tools": [{"type": "function"}]}), "without name"),
        (json!({"max_output_tokens": "many"}), "max_output_tokens"),
    ];
    for (fields, text) in faults {
        let answer = post(&server, body(fields));
        assert_eq!(answer.status, 400, "{answer:?}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(text), "{message}");
    }
}
