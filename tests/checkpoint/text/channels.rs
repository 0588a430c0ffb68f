//! The division of answers into content, thoughts and tool calls.

use super::fixtures::{assets, small_vocabulary};
use gemma4_wgpu::text::{AnswerEvent, AnswerParts, Channels, ToolCall};
use gemma4_wgpu::text::{ChatTemplate, Message, RenderOptions, Role, Tokenizer, Vocabulary};
use serde_json::{Value, json};

const CHANNEL_OPEN: &str = "<|channel>";
const CHANNEL_CLOSE: &str = "<channel|>";
pub const CALL_OPEN: &str = "<|tool_call>";
pub const CALL_CLOSE: &str = "<tool_call|>";
pub const QUOTE: &str = "<|\"|>";
const RESPONSE: &str = "<|tool_response>";
const RESPONSE_END: &str = "<tool_response|>";
const THINK: &str = "<|think|>";

/// Marks of Gemma 4 that the small vocabulary lacks.
pub const ADDED: [&str; 8] = [
    CHANNEL_OPEN, // in the order of channels_random's stand-ins
    CHANNEL_CLOSE,
    CALL_OPEN,
    CALL_CLOSE,
    QUOTE,
    RESPONSE,
    RESPONSE_END,
    THINK,
];

/// A template that contains all marks.
const TEMPLATE: &str = "{# <|channel> <channel|> <|tool_call> <tool_call|> <|\"|> \
                        <|tool_response> <tool_response|> <|think|> #}{{ messages[0].content }}";

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
pub const CONTROL: i32 = 3;
pub const USER_DEFINED: i32 = 4;

pub struct Model {
    pub tokenizer: Tokenizer,
    channels: Channels,
}

impl Model {
    /// A model with marks of this type. With `None` only the template has them.
    pub fn new(mark_type: Option<i32>) -> Model {
        let mut vocabulary = small_vocabulary("gemma4");
        if let Some(kind) = mark_type {
            vocabulary.tokens.extend(ADDED.map(String::from));
            vocabulary.token_types.extend([kind; ADDED.len()]);
        }
        let mut assets = assets(Vocabulary::Gguf(vocabulary));
        assets.chat_template = Some(TEMPLATE.into());
        let tokenizer = Tokenizer::new(&assets).unwrap();
        let template = ChatTemplate::new(&assets, &tokenizer).unwrap();
        Model { channels: Channels::new(&tokenizer, &template).unwrap(), tokenizer }
    }

    /// The ids of a text. Marks are single tokens if the vocabulary has them.
    fn ids(&self, text: &str) -> Vec<u32> {
        let marks = ADDED.iter().chain(&["<|turn>", "<turn|>"]);
        let first = marks.filter_map(|mark| Some((text.find(mark)?, *mark))).min();
        let Some((start, mark)) = first else { return self.tokenizer.encode(text, false).unwrap() };
        let own = self.tokenizer.id_of(mark).map(|id| vec![id]);
        let own = own.unwrap_or_else(|| self.tokenizer.encode(mark, false).unwrap());
        let before = self.tokenizer.encode(&text[..start], false).unwrap();
        [before, own, self.ids(&text[start + mark.len()..])].concat()
    }

    /// The events of an answer, with those at its end last.
    pub fn events(&self, prompt: &str, answer: &[u32]) -> Vec<AnswerEvent> {
        let mut parser = self.channels.parser(&self.tokenizer, &self.ids(prompt));
        let mut events: Vec<AnswerEvent> = answer.iter().flat_map(|&id| parser.push(id)).collect();
        events.extend(parser.finish());
        events
    }

    pub fn parts_of(&self, prompt: &str, answer: &[u32]) -> AnswerParts {
        let mut parts = AnswerParts::default();
        self.events(prompt, answer).into_iter().for_each(|event| parts.add(event));
        parts
    }

    pub fn parts(&self, prompt: &str, answer: &str) -> AnswerParts {
        self.parts_of(prompt, &self.ids(answer))
    }
}

/// Models with all types of marks, and one without marks.
fn models() -> [Model; 4] {
    [Some(CONTROL), Some(USER_DEFINED), Some(NORMAL), None].map(Model::new)
}

pub const PROMPT: &str = "<|turn>user\nhi<turn|>\n<|turn>model\n";

#[track_caller]
fn assert_parts(prompt: &str, answer: &str, content: &str, reasoning: Option<&str>) {
    for (index, model) in models().iter().enumerate() {
        let parts = model.parts(prompt, answer);
        let found = (parts.content.as_str(), parts.reasoning.as_deref());
        assert_eq!(found, (content, reasoning), "model {index}");
        assert!(parts.tool_calls.is_empty() && parts.broken_calls.is_empty());
        assert!(parts.channels.is_empty());
    }
}

#[test]
fn thoughts_are_apart_from_content() {
    assert_parts(PROMPT, "<|channel>thought\n\ni<channel|>hello!", "hello!", Some("i"));
    assert_parts(PROMPT, "hello!", "hello!", None);
    assert_parts(PROMPT, "<|channel>thought\n<channel|>hello!", "hello!", None);
    let twice = "a<|channel>thought\nb<channel|>c<|channel>thought\nd<channel|>";
    assert_parts(PROMPT, twice, "ac", Some("b\n\nd"));
    // Answers that a limit or the reader ends.
    assert_parts(PROMPT, "<|channel>thought\nhm, let", "", Some("hm, let"));
    assert_parts(PROMPT, "<|channel>tho", "", None);
    // An end mark without a start mark is not text.
    assert_parts(PROMPT, "hello<channel|>!<tool_call|><|\"|>", "hello!", None);
    // A name without a line of its own is part of the thought.
    assert_parts(PROMPT, "<|channel>thought I<channel|>b", "b", Some("thought I"));
    assert_parts(PROMPT, "<|channel>\nhm<channel|>b", "b", Some("hm"));
    // The mark of a turn or a response ends an open part.
    assert_parts(PROMPT, "<|channel>thought\na<turn|>b", "b", Some("a"));
    // Only exact marks are marks, not similar text.
    let alike = "a <| channel> <|chan <channel <";
    assert_parts(PROMPT, alike, alike, None);
}

#[test]
fn whitespace_around_thoughts_is_trimmed_and_that_of_content_stays() {
    let spaced = "<|channel>thought\n \n a\n\n b \n<channel|>\n\n c \n";
    assert_parts(PROMPT, spaced, "c \n", Some("a\n\n b"));
    assert_parts(PROMPT, " \n a", " \n a", None);
    assert_parts(PROMPT, "a\n<|channel>thought\nb<channel|>\n c", "a\n\n c", Some("b"));
    assert_parts(PROMPT, "a <|channel>thought\nb<channel|>\n", "a ", Some("b"));
    assert_parts(PROMPT, "<|channel>thought\n \n <channel|>a", "a", None);
}

#[test]
fn an_answer_begins_where_its_prompt_ends() {
    let open = |end: &str| format!("{PROMPT}{end}");
    assert_parts(&open("<|channel>thought\n<channel|>"), "\nhello", "\nhello", None);
    assert_parts(&open("<|channel>thought\n"), "\nhm<channel|>hello", "hello", Some("hm"));
    assert_parts(&open("<|channel>thought"), "\nhm<channel|>hello", "hello", Some("hm"));
    assert_parts(&open("<|channel>thought\nhm"), " so<channel|>hello", "hello", Some(" so"));
    let used = "call<|tool_call>call:f{}<tool_call|>\
                <|tool_response>response:f{value:<|\"|>x<|\"|>}<tool_response|>";
    assert_parts(&open(used), "hello", "hello", None);
    let thinks = open(&format!("{used}<|channel>thought\n"));
    assert_parts(&thinks, "hm<channel|>hello", "hello", Some("hm"));
    // A part that an earlier turn left open has ended.
    let earlier = format!("<|turn>user\n<|channel>thought\n<turn|>\n{PROMPT}");
    assert_parts(&earlier, "hello", "hello", None);
    assert_parts("", "hello", "hello", None);
    for model in models() {
        let parts = model.parts(&open("<|tool_call>call:f{"), "a:1}<tool_call|>");
        assert_eq!(parts.tool_calls, [call("f", json!({"a": 1}))]);
    }
}

#[test]
fn other_channels_keep_their_names() {
    for model in models() {
        let answer = "<|channel>plan\n one <channel|>a<|channel>plan\ntwo<channel|><|channel>b";
        let parts = model.parts(PROMPT, answer);
        let expected = [("plan", "one"), ("plan", "two"), ("b", "")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(parts.channels, expected);
        assert_eq!((parts.content.as_str(), parts.reasoning), ("a", None));
    }
}

fn call(name: &str, arguments: Value) -> ToolCall {
    let Value::Object(arguments) = arguments else { panic!("arguments are a map") };
    ToolCall::new(name, arguments)
}

#[track_caller]
fn assert_calls(answer: &str, expected: &[ToolCall]) {
    for model in models() {
        let parts = model.parts(PROMPT, answer);
        assert_eq!(parts.tool_calls, expected, "{answer}");
        assert_eq!(parts.broken_calls, [], "{answer}");
    }
}

#[test]
fn calls_are_read_in_their_order() {
    let weather = r#"<|tool_call>call:sky{city:<|"|>Paris, {FR} "x" é<|"|>,days:3}<tool_call|>"#;
    let expected = call("sky", json!({"city": "Paris, {FR} \"x\" é", "days": 3}));
    assert_calls(weather, std::slice::from_ref(&expected));
    let second = r#"call:a.b-c{x:[1,-2.5,1e3,true,false,null,None,[],{}],y:{z:{w:<|"|><|"|>}}}"#;
    let items = json!([1, -2.5, 1000.0, true, false, null, null, [], {}]);
    let value = json!({"x": items, "y": {"z": {"w": ""}}});
    let second = format!("{CALL_OPEN}{second}{CALL_CLOSE}");
    assert_calls(&format!("{weather}{second}"), &[expected.clone(), call("a.b-c", value)]);
    assert_calls(
        "<|tool_call>call:f{}<tool_call|>\n<|tool_call> call:g{ }\n<tool_call|>",
        &[call("f", json!({})), call("g", json!({}))],
    );
    // Several calls between one pair of marks, quoted keys, JSON's strings, and marks in strings.
    assert_calls(
        "<|tool_call>call:f{a:1}call:g{b:2}<tool_call|>",
        &[call("f", json!({"a": 1})), call("g", json!({"b": 2}))],
    );
    assert_calls(
        r#"<|tool_call>call:f{<|"|>k:<|"|>:"a\n\"b",c d:0}<tool_call|>"#,
        &[call("f", json!({"k:": "a\n\"b", "c d": 0}))],
    );
    assert_calls(
        r#"<|tool_call>call:f{a:<|"|>x<|channel>y<|tool_call><turn|><|"|>}<tool_call|>"#,
        &[call("f", json!({"a": "x<|channel>y<|tool_call><turn|>"}))],
    );
    // A call without its end mark, at the end and before the next call.
    assert_calls("<|tool_call>call:f{a:1}", &[call("f", json!({"a": 1}))]);
    assert_calls(
        "<|tool_call>call:f{}<|tool_call>call:g{}<|tool_response>",
        &[call("f", json!({})), call("g", json!({}))],
    );
}

#[test]
fn calls_stand_beside_thoughts_and_content() {
    for model in models() {
        let answer = "<|channel>thought\nhm<channel|>Look:\n<|tool_call>call:f{}<tool_call|>\n\
                      <|tool_call>call:g{}<tool_call|>\nDone";
        let parts = model.parts(PROMPT, answer);
        assert_eq!(parts.content, "Look:\n\nDone");
        assert_eq!(parts.reasoning.as_deref(), Some("hm"));
        assert_eq!(parts.tool_calls, [call("f", json!({})), call("g", json!({}))]);
        // A call ends the thought.
        let parts = model.parts(PROMPT, "<|channel>thought\nhm<|tool_call>call:f{}<tool_call|>");
        assert_eq!((parts.reasoning.as_deref(), parts.tool_calls.len()), (Some("hm"), 1));
    }
}

#[test]
fn broken_calls_come_back_with_a_reason() {
    let deep = format!("call:f{{a:{}", "[".repeat(100_000));
    let cases = [
        ("", "it does not begin with call:NAME{"),
        ("`call:f{}`", "it does not begin with call:NAME{"),
        ("call:", "no name and { follow call:"),
        ("call:f", "no name and { follow call:"),
        ("call:f g{}", "no name and { follow call:"),
        ("call:f{a}", "no : follows the key \"a\""),
        ("call:f{:1}", "a key is missing"),
        ("call:f{a:}", "\"\" is no value"),
        ("call:f{a:Paris}", "\"Paris\" is no value"),
        ("call:f{a:1,}", "a key is missing"),
        ("call:f{a:1", "neither , nor } follows the value of \"a\""),
        ("call:f{a:[1}", "neither , nor ] follows an item of an array"),
        ("call:f{a:01}", "\"01\" is no value"),
        ("call:f{a:NaN}", "\"NaN\" is no value"),
        ("call:f{a:123456789012345678901234}", "123456789012345678901234 exceeds 64 bits"),
        ("call:f{a:<|\"|>x}", "a string has no end"),
        ("call:f{a:\"x}", "a string in double quotes has no end"),
        ("call:f{} and more", "it does not begin with call:NAME{"),
        ("call:f{a:1<channel|>}", "\"1<channel|>\" is no value"),
        (deep.as_str(), "it is nested deeper than 64"),
    ];
    for model in [Model::new(Some(CONTROL)), Model::new(None)] {
        for (text, reason) in cases {
            let parts = model.parts(PROMPT, &format!("a{CALL_OPEN}{text}{CALL_CLOSE}b"));
            assert_eq!(parts.content, "ab");
            let [broken] = parts.broken_calls.as_slice() else { panic!("{text}: {parts:?}") };
            assert_eq!(broken.reason, reason, "{text}");
            assert!(text.ends_with(broken.text.trim_start()), "{text}: {broken:?}");
        }
        let cut = model.parts(PROMPT, "<|tool_call>call:f{a:<|\"|>x").broken_calls;
        assert_eq!(cut[0].text, "call:f{a:<|\"|>x");
        assert_eq!(cut[0].reason, "the answer leaves it unfinished: a string has no end");
    }
}

#[test]
fn messages_carry_thoughts_and_calls_to_the_template() {
    let source = "{{ messages | tojson }}";
    let mut assets = assets(Vocabulary::Gguf(small_vocabulary("gemma4")));
    assets.chat_template = Some(source.into());
    let template = ChatTemplate::new(&assets, &Tokenizer::new(&assets).unwrap()).unwrap();
    let text = r#"[{"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "c <turn|>", "tool_calls": [
            {"id": "1", "type": "function",
             "function": {"name": "f", "arguments": "{\"x\": [\"<turn|>\"]}"}},
            {"function": {"name": "g"}}]},
        {"role": "assistant", "tool_calls": []}]"#;
    let messages: Vec<Message> = serde_json::from_str(text).unwrap();
    let first = ToolCall { id: Some("1".into()), ..call("f", json!({"x": ["<turn|>"]})) };
    let calls = [first, call("g", json!({}))];
    assert_eq!(messages[1].tool_calls().collect::<Vec<_>>(), [&calls[0], &calls[1]]);
    let function = |name: &str, arguments: Value| {
        let function = json!({"name": name, "arguments": arguments});
        json!({"type": "function", "function": function})
    };
    let mut with_id = function("f", json!({"x": ["<turn|>"]}));
    with_id["id"] = json!("1");
    let rendered = template.render(&messages, &RenderOptions::default()).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&rendered).unwrap(),
        json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b",
         "reasoning": "c <turn|>", "reasoning_content": "c <turn|>",
             "tool_calls": [with_id, function("g", json!({}))]},
            {"role": "assistant", "content": ""},
        ])
    );
    let plain = serde_json::to_value(Message::new(Role::User, "a")).unwrap();
    assert_eq!(plain, json!({"role": "user", "content": "a"}));
    let written = serde_json::to_string(&messages).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Message>>(&written).unwrap(), messages);
    for arguments in [json!("no JSON"), json!("[]"), json!([1])] {
        let message = json!({"role": "assistant", "tool_calls": [function("f", arguments)]});
        let error = serde_json::from_value::<Message>(message).unwrap_err().to_string();
        assert!(error.contains("the arguments of \"f\" are no JSON"), "{error}");
    }
}

#[test]
fn a_prompt_goes_on_in_the_tokens_that_are_known() {
    let Model { tokenizer, .. } = Model::new(Some(CONTROL));
    let bytes = |text: &str| text.bytes().map(|byte| 8 + u32::from(byte)).collect::<Vec<u32>>();
    let ids = |text: &str| tokenizer.encode(text, true).unwrap();
    let turn = ids("<|turn>");
    // The known tokens are bytes. The tokenizer writes "the hat" in fewer tokens.
    let known = [&turn[..], &bytes("the hat")].concat();
    let prompt = ids("<|turn>the hat<turn|>the");
    assert!(prompt.len() < known.len());
    let rest = ids("<turn|>the");
    assert_eq!(tokenizer.as_known(prompt.clone(), &known), [&known[..], &rest].concat());
    assert_eq!(tokenizer.as_known(prompt.clone(), &prompt), prompt);
    assert_eq!(tokenizer.as_known(prompt.clone(), &[]), prompt);
    // Only whole tokens of both count. "ha" ends within a token of the prompt, whose text
    // continues.
    let cut = [&turn[..], &bytes("the ha")].concat();
    let kept = tokenizer.as_known(prompt.clone(), &cut);
    assert_eq!(tokenizer.decode(&kept), tokenizer.decode(&prompt));
    // Other text is not the same, nor is text that spells a control token.
    let other = [&turn[..], &bytes("thx hat")].concat();
    assert_eq!(tokenizer.decode(&tokenizer.as_known(prompt.clone(), &other)), "the hatthe");
    let spelled = bytes("<|turn>the hat");
    assert_eq!(tokenizer.as_known(prompt.clone(), &spelled), prompt);
}
