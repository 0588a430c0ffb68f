//! `/v1/chat/completions`

use serde_json::{Value, json};

use super::{CALLS, MALFORMED, arguments, schema};
use crate::support::{block_on, scripted};

fn tools() -> Value {
    let sky = json!({"name": "sky", "description": "The sky of a city", "parameters": schema()});
    json!([
        {"type": "function", "function": sky},
        {"type": "function", "function": {"name": "list"}},
        {"type": "web_search"},
    ])
}

fn body(more: Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "weather?"}],
        "tools": tools(),
        "reasoning_effort": "high",
        "temperature": 0,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn thoughts_and_calls_are_apart() {
    let server = scripted(&[("weather?", CALLS)]);
    let answer = block_on(server.chat(body(json!({}))));
    assert_eq!(answer.status, 200, "{answer:?}");
    let choice = answer.json()["choices"][0].clone();
    let message = &choice["message"];
    assert_eq!(message["content"], "I call.");
    assert_eq!(message["reasoning_content"], "Let me look.");
    assert_eq!(choice["finish_reason"], "tool_calls");
    let calls = message["tool_calls"].as_array().unwrap();
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    for (call, (name, arguments)) in calls.iter().zip(["sky", "list"].iter().zip(arguments())) {
        assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!(name)));
        let text = call["function"]["arguments"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), arguments);
    }
    assert_eq!(calls.len(), 2);
}

#[test]
fn calls_are_streamed_by_index() {
    let server = scripted(&[("weather?", CALLS)]);
    let events = block_on(server.chat(body(json!({"stream": true})))).events();
    let deltas: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
    let joined =
        |name: &str| -> String { deltas.iter().filter_map(|delta| delta[name].as_str()).collect() };
    assert_eq!(
        (joined("content"), joined("reasoning_content")),
        ("I call.".into(), "Let me look.".into())
    );
    let pieces: Vec<&Value> =
        deltas.iter().filter_map(|delta| delta["tool_calls"].as_array()).flatten().collect();
    for (index, arguments) in arguments().iter().enumerate() {
        let of_call: Vec<&&Value> = pieces.iter().filter(|piece| piece["index"] == index).collect();
        // Only the first piece has an id, a type and a name.
        assert!(of_call[0]["id"].is_string() && of_call[0]["type"] == "function");
        assert!(of_call[0]["function"]["name"].is_string());
        assert!(
            of_call[1..]
                .iter()
                .all(|piece| piece["id"].is_null() && piece["function"]["name"].is_null())
        );
        let text: String =
            of_call.iter().map(|piece| piece["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), *arguments);
    }
    let reasons: Vec<&Value> =
        events.iter().map(|event| &event["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons.iter().filter(|reason| reason.is_string()).count(), 1);
    assert_eq!(*reasons[reasons.len() - 1], "tool_calls");
}

#[test]
fn a_malformed_call_is_text_with_a_flag() {
    let server = scripted(&[("weather?", MALFORMED)]);
    // With tools no call could be malformed.
    let answer = block_on(server.chat(body(json!({"tools": []})))).json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "Hm. call:sky{city:<|\"|>Paris");
    assert!(message["malformed_tool_call"].as_str().unwrap().contains("unfinished"));
    assert!(message["tool_calls"].is_null());
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let events = block_on(server.chat(body(json!({"stream": true, "tools": []})))).events();
    let flagged = |event: &&Value| event["choices"][0]["delta"]["malformed_tool_call"].is_string();
    assert_eq!(events.iter().filter(flagged).count(), 1);
}

/// A loop of two tools, each result with its call, and the thoughts before them.
#[test]
fn an_agent_loop_ends() {
    let server = scripted(&[
        ("weather?", CALLS),
        ("result one", "<|tool_call>call:list{}<tool_call|>"),
        ("result two", "Hm.<channel|>It rains."),
    ]);
    let mut messages = vec![json!({"role": "user", "content": "weather?"})];
    let mut rounds = 0;
    let last = loop {
        let answer = block_on(server.chat(body(json!({"messages": messages}))));
        assert_eq!(answer.status, 200, "{answer:?}");
        let choice = answer.json()["choices"][0].clone();
        let message = choice["message"].clone();
        messages.push(message.clone());
        if choice["finish_reason"] == "stop" {
            break message;
        }
        rounds += 1;
        assert!(rounds < 5, "{messages:?}");
        for (number, call) in message["tool_calls"].as_array().unwrap().iter().enumerate() {
            let text = match (rounds, number) {
                (1, 1) => "result one",
                (2, 0) => "result two",
                _ => "nothing",
            };
            let content = json!([{"type": "text", "text": text}]);
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": content}));
        }
    };
    assert_eq!((rounds, &last["content"]), (2, &json!("It rains.")));
    let request = body(json!({"messages": messages[..6]}));
    let prompt = block_on(server.post("/apply-template", request.to_string())).json();
    let prompt = prompt["prompt"].as_str().unwrap();
    let first = "<|turn>model\n<|channel>thought\nLet me look.\n<channel|>I call.\
        <|tool_call>call:sky{city:<|\"|>Paris, {FR} \"x\"<|\"|>,days:3}<tool_call|>\
        <|tool_call>call:list{of:{a:[1,true,null]}}<tool_call|>\
        <|tool_response>response:sky{value:<|\"|>nothing<|\"|>}<tool_response|>\
        <|tool_response>response:list{value:<|\"|>result one<|\"|>}<tool_response|>\
        <|tool_call>call:list{}<tool_call|>\
        <|tool_response>response:list{value:<|\"|>result two<|\"|>}<tool_response|>";
    assert!(prompt.contains(first), "{prompt}");
    assert!(prompt.ends_with("<tool_response|><|channel>thought\n"), "{prompt}");
    let declared = "<|tool>declaration:sky{description:<|\"|>The sky of a city<|\"|>,parameters:{\
        properties:{city:{description:<|\"|>A <turn|> city<|\"|>,type:<|\"|>STRING<|\"|>},\
        days:{nullable:true,type:<|\"|>INTEGER<|\"|>}},required:[<|\"|>city<|\"|>],\
        type:<|\"|>OBJECT<|\"|>}}<tool|>\
        <|tool>declaration:list{parameters:{type:<|\"|>OBJECT<|\"|>}}<tool|><turn|>\n";
    assert!(prompt.contains(declared), "{prompt}");
    // The text of a control token in a description is no control token.
    let tokenize = json!({"content": prompt, "parse_special": true}).to_string();
    let tokens = block_on(server.post("/tokenize", tokenize)).json();
    let spelled = tokens["tokens"].as_array().unwrap().len() as u64;
    let mut counted = request;
    counted["max_tokens"] = json!(1);
    let usage = block_on(server.chat(counted)).json()["usage"].clone();
    assert!(usage["prompt_tokens"].as_u64().unwrap() > spelled, "{usage} {spelled}");
}

#[test]
fn faults_of_tools_are_named() {
    let server = scripted(&[]);
    let result = json!({"role": "tool", "tool_call_id": "x", "content": "r"});
    let faults = [
        (json!({"messages": [{"role": "user", "content": "a"}, result]}), "no call before it"),
        (json!({"tools": {}}), "tools must be a list"),
        (json!({"tools": [{"type": "function"}]}), "without name"),
        (json!({"tools": [{"function": {"name": "f"}}]}), "without type"),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "\"a b\""),
        (json!({"tool_choice": "always"}), "tool_choice"),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": "{"}}]}]}),
            "no JSON",
        ),
    ];
    for (fields, text) in faults {
        let answer = block_on(server.chat(body(fields)));
        assert_eq!(answer.status, 400, "{answer:?}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(text), "{message}");
    }
    let twice = json!([tools()[1], tools()[1]]);
    assert_eq!(block_on(server.chat(body(json!({"tools": twice})))).status, 400);
    // Without a choice of tools, none are declared.
    let none = body(json!({"tool_choice": "none", "messages": [{"role": "user", "content": "a"}]}));
    let prompt = block_on(server.post("/apply-template", none.to_string())).json();
    assert!(!prompt["prompt"].as_str().unwrap().contains("declaration"));
}
