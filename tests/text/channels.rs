//! Answers parted into content, thoughts and tool calls.

use crate::fixtures::{assets, small_vocabulary};
use gemma4_wgpu::text::{
    AnswerEvent, AnswerParts, Channels, ChatTemplate, Message, RenderOptions, Role, TextStream, Tokenizer, ToolCall,
    Vocabulary,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const CHANNEL_OPEN: &str = "<|channel>";
const CHANNEL_CLOSE: &str = "<channel|>";
const CALL_OPEN: &str = "<|tool_call>";
const CALL_CLOSE: &str = "<tool_call|>";
const QUOTE: &str = "<|\"|>";

/// What the small vocabulary lacks of Gemma 4's marks.
const ADDED: [&str; 8] =
    [CHANNEL_OPEN, CHANNEL_CLOSE, CALL_OPEN, CALL_CLOSE, QUOTE, "<|tool_response>", "<tool_response|>", "<|think|>"];

/// A template that spells all marks.
const TEMPLATE: &str = "{# <|channel> <channel|> <|tool_call> <tool_call|> <|\"|> <|tool_response> <tool_response|> \
                        <|think|> #}{{ messages[0].content }}";

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

struct Model {
    tokenizer: Tokenizer,
    channels: Channels,
}

impl Model {
    /// With marks of this type; `None` where only the template knows them.
    fn new(mark_type: Option<i32>) -> Model {
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

    /// Ids of a text whose marks are single tokens where the vocabulary has them.
    fn ids(&self, text: &str) -> Vec<u32> {
        let marks = ADDED.iter().chain(&["<|turn>", "<turn|>"]);
        let first = marks.filter_map(|mark| Some((text.find(mark)?, *mark))).min();
        let Some((start, mark)) = first else { return self.tokenizer.encode(text, false).unwrap() };
        let own = self.tokenizer.id_of(mark).map(|id| vec![id]);
        let own = own.unwrap_or_else(|| self.tokenizer.encode(mark, false).unwrap());
        [self.tokenizer.encode(&text[..start], false).unwrap(), own, self.ids(&text[start + mark.len()..])].concat()
    }

    /// The events of an answer, those at its end last.
    fn events(&self, prompt: &str, answer: &[u32]) -> Vec<AnswerEvent> {
        let mut parser = self.channels.parser(&self.tokenizer, &self.ids(prompt));
        let mut events: Vec<AnswerEvent> = answer.iter().flat_map(|&id| parser.push(id)).collect();
        events.extend(parser.finish());
        events
    }

    fn parts_of(&self, prompt: &str, answer: &[u32]) -> AnswerParts {
        let mut parts = AnswerParts::default();
        self.events(prompt, answer).into_iter().for_each(|event| parts.add(event));
        parts
    }

    fn parts(&self, prompt: &str, answer: &str) -> AnswerParts {
        self.parts_of(prompt, &self.ids(answer))
    }
}

/// Whatever a file calls its marks, and where it has none.
fn models() -> [Model; 4] {
    [Some(CONTROL), Some(USER_DEFINED), Some(NORMAL), None].map(Model::new)
}

const PROMPT: &str = "<|turn>user\nhi<turn|>\n<|turn>model\n";

#[track_caller]
fn assert_parts(prompt: &str, answer: &str, content: &str, reasoning: Option<&str>) {
    for (index, model) in models().iter().enumerate() {
        let parts = model.parts(prompt, answer);
        assert_eq!((parts.content.as_str(), parts.reasoning.as_deref()), (content, reasoning), "model {index}");
        assert!(parts.channels.is_empty() && parts.tool_calls.is_empty() && parts.broken_calls.is_empty());
    }
}

#[test]
fn thoughts_are_apart_from_content() {
    assert_parts(PROMPT, "<|channel>thought\n\ni<channel|>hello!", "hello!", Some("i"));
    assert_parts(PROMPT, "hello!", "hello!", None);
    assert_parts(PROMPT, "<|channel>thought\n<channel|>hello!", "hello!", None);
    assert_parts(PROMPT, "a<|channel>thought\nb<channel|>c<|channel>thought\nd<channel|>", "ac", Some("b\n\nd"));
    // Cut off by a limit, or by the reader.
    assert_parts(PROMPT, "<|channel>thought\nhm, let", "", Some("hm, let"));
    assert_parts(PROMPT, "<|channel>tho", "", None);
    // What ends without having begun is no text.
    assert_parts(PROMPT, "hello<channel|>!<tool_call|><|\"|>", "hello!", None);
    // A name without a line of its own is a part of the thought.
    assert_parts(PROMPT, "<|channel>thought I<channel|>b", "b", Some("thought I"));
    assert_parts(PROMPT, "<|channel>\nhm<channel|>b", "b", Some("hm"));
    // A turn's or a response's mark ends what is open.
    assert_parts(PROMPT, "<|channel>thought\na<turn|>b", "b", Some("a"));
    // Marks alone are marks, not what resembles them.
    assert_parts(PROMPT, "a <| channel> <|chan <channel <", "a <| channel> <|chan <channel <", None);
}

#[test]
fn whitespace_around_thoughts_is_trimmed_and_that_of_content_stays() {
    assert_parts(PROMPT, "<|channel>thought\n \n a\n\n b \n<channel|>\n\n c \n", "c \n", Some("a\n\n b"));
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
    let used = "call<|tool_call>call:f{}<tool_call|><|tool_response>response:f{value:<|\"|>x<|\"|>}<tool_response|>";
    assert_parts(&open(used), "hello", "hello", None);
    assert_parts(&open(&format!("{used}<|channel>thought\n")), "hm<channel|>hello", "hello", Some("hm"));
    // What an earlier turn left open is over.
    assert_parts(&format!("<|turn>user\n<|channel>thought\n<turn|>\n{PROMPT}"), "hello", "hello", None);
    assert_parts("", "hello", "hello", None);
    for model in models() {
        let parts = model.parts(&open("<|tool_call>call:f{"), "a:1}<tool_call|>");
        assert_eq!(parts.tool_calls, [call("f", json!({"a": 1}))]);
    }
}

#[test]
fn other_channels_keep_their_names() {
    for model in models() {
        let parts = model.parts(PROMPT, "<|channel>plan\n one <channel|>a<|channel>plan\ntwo<channel|><|channel>b");
        let expected = [("plan", "one"), ("plan", "two"), ("b", "")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!((parts.channels.as_slice(), parts.content.as_str(), parts.reasoning), (&expected[..], "a", None));
    }
}

fn call(name: &str, arguments: Value) -> ToolCall {
    let Value::Object(arguments) = arguments else { panic!("arguments are a map") };
    ToolCall { name: name.into(), arguments }
}

#[track_caller]
fn assert_calls(answer: &str, expected: &[ToolCall]) {
    for model in models() {
        let parts = model.parts(PROMPT, answer);
        assert_eq!((parts.tool_calls.as_slice(), parts.broken_calls.as_slice()), (expected, &[][..]), "{answer}");
    }
}

#[test]
fn calls_are_read_in_their_order() {
    let weather = r#"<|tool_call>call:get_weather{city:<|"|>Paris, {FR} "x" é<|"|>,days:3}<tool_call|>"#;
    let expected = call("get_weather", json!({"city": "Paris, {FR} \"x\" é", "days": 3}));
    assert_calls(weather, std::slice::from_ref(&expected));
    let second =
        r#"<|tool_call>call:a.b-c{x:[1,-2.5,1e3,true,false,null,None,[],{}],y:{z:{w:<|"|><|"|>}}}<tool_call|>"#;
    let value = json!({"x": [1, -2.5, 1000.0, true, false, null, null, [], {}], "y": {"z": {"w": ""}}});
    assert_calls(&format!("{weather}{second}"), &[expected.clone(), call("a.b-c", value)]);
    assert_calls(
        "<|tool_call>call:f{}<tool_call|>\n<|tool_call> call:g{ }\n<tool_call|>",
        &[call("f", json!({})), call("g", json!({}))],
    );
    // Several between one pair of marks, quoted keys, JSON's strings, marks within strings.
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
    // Without its end mark: at the end, and before the next.
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
        assert_eq!((parts.content.as_str(), parts.reasoning.as_deref()), ("Look:\n\nDone", Some("hm")));
        assert_eq!(parts.tool_calls, [call("f", json!({})), call("g", json!({}))]);
        // A thought that a call ends.
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
        ("call:f{a:1,a:2}", "the key \"a\" comes twice"),
        ("call:f{a:123456789012345678901234}", "123456789012345678901234 has more than 64 bits"),
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
    let assets = gemma4_wgpu::text::TextAssets {
        chat_template: Some(source.into()),
        ..assets(Vocabulary::Gguf(small_vocabulary("gemma4")))
    };
    let template = ChatTemplate::new(&assets, &Tokenizer::new(&assets).unwrap()).unwrap();
    let text = r#"[{"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "c <turn|>", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": [\"<turn|>\"]}"}},
            {"function": {"name": "g"}}]},
        {"role": "assistant", "tool_calls": []}]"#;
    let messages: Vec<Message> = serde_json::from_str(text).unwrap();
    assert_eq!(messages[1].tool_calls, [call("f", json!({"x": ["<turn|>"]})), call("g", json!({}))]);
    let function =
        |name: &str, arguments: Value| json!({"type": "function", "function": {"name": name, "arguments": arguments}});
    let rendered = template.render(&messages, &RenderOptions::default()).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&rendered).unwrap(),
        json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning": "c <turn|>", "reasoning_content": "c <turn|>",
             "tool_calls": [function("f", json!({"x": ["<turn|>"]})), function("g", json!({}))]},
            {"role": "assistant", "content": ""},
        ])
    );
    assert_eq!(serde_json::to_value(Message::new(Role::User, "a")).unwrap(), json!({"role": "user", "content": "a"}));
    let again: Vec<Message> = serde_json::from_value(serde_json::to_value(&messages).unwrap()).unwrap();
    assert_eq!(again, messages);
    for arguments in [json!("no JSON"), json!("[]"), json!([1])] {
        let message = json!({"role": "assistant", "tool_calls": [function("f", arguments)]});
        let error = serde_json::from_value::<Message>(message).unwrap_err().to_string();
        assert!(error.contains("the arguments of \"f\" are no JSON"), "{error}");
    }
}

/// The parts of an answer without well-formed calls, found from its whole text at once. Marks are
/// characters of a private area there, in the order of [`ADDED`]; then `<|turn>` and `<turn|>`.
fn parted_at_once(answer: &str) -> (String, Vec<String>, Vec<String>) {
    const MARKS: [char; 10] = [
        '\u{e000}', '\u{e001}', '\u{e002}', '\u{e003}', '\u{e004}', '\u{e005}', '\u{e006}', '\u{e007}', '\u{e008}',
        '\u{e009}',
    ];
    let spelled = |text: &str| {
        let spell = |c: char| match MARKS.iter().position(|mark| *mark == c) {
            Some(8) => "<|turn>".to_owned(),
            Some(9) => "<turn|>".to_owned(),
            Some(index) => ADDED[index].to_owned(),
            None => c.to_string(),
        };
        text.chars().map(spell).collect::<String>()
    };
    let (mut content, mut thoughts, mut calls) = (String::new(), Vec::new(), Vec::new());
    let mut rest = answer;
    while let Some(mark) = rest.chars().next() {
        let inner = &rest[mark.len_utf8()..];
        let text_end = |text: &str, ends: &[char]| text.find(ends).unwrap_or(text.len());
        if mark == MARKS[0] {
            let end = text_end(inner, &[MARKS[0], MARKS[1], MARKS[2], MARKS[5], MARKS[6], MARKS[8], MARKS[9]]);
            let body = inner[..end].replace(|c| MARKS.contains(&c), "");
            let is_cut = end == inner.len() && "thought".starts_with(&body);
            thoughts.push(if is_cut { String::new() } else { channel_text(&body) });
            let closed = inner[end..].strip_prefix(MARKS[1]);
            rest = closed.unwrap_or(&inner[end..]);
        } else if mark == MARKS[2] {
            let ends = |(at, c): &(usize, char)| {
                let is_string = inner[..*at].matches(MARKS[4]).count() % 2 == 1;
                *c == MARKS[3] || (!is_string && [0, 2, 5, 6, 8, 9].iter().any(|&index| MARKS[index] == *c))
            };
            let end = inner.char_indices().find(ends).map_or(inner.len(), |(at, _)| at);
            calls.push(spelled(&inner[..end]));
            rest = inner[end..].strip_prefix(MARKS[3]).unwrap_or(&inner[end..]);
        } else {
            content.extend(Some(mark).filter(|c| !MARKS.contains(c)));
            rest = inner;
        }
    }
    (content, thoughts, calls)
}

/// A channel's text, with its name before it unless that is `thought`.
fn channel_text(body: &str) -> String {
    let (line, text) = body.split_once('\n').unwrap_or((body, ""));
    let is_name = line.len() <= 32 && line.trim_end().chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
    match line.trim_end() {
        _ if !is_name => body.to_owned(),
        "thought" => text.to_owned(),
        name => format!("{name}{text}"),
    }
}

/// Without the whitespace that may be trimmed.
fn solid(text: &str) -> String {
    text.split_whitespace().collect()
}

/// A value as a template of Gemma 4 writes it.
fn written(value: &Value) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key}:{}", written(value));
    match value {
        Value::String(text) => format!("{QUOTE}{text}{QUOTE}"),
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(",")),
        Value::Object(map) => format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        "[ -~é\n]{0,12}".prop_map(Value::from),
    ];
    let key = "[a-z_]{1,6}";
    let value = leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(key, value, 0..4).prop_map(|map| map.into_iter().collect())
}

proptest! {
    /// No token of any sequence is lost, and each lands where the whole text says.
    #[test]
    fn any_tokens_are_parted_as_their_whole_text(picks in prop::collection::vec((0usize..24, 0u32..256), 0..50)) {
        let model = Model::new(Some(CONTROL));
        let texts = ["thought", "\n", "the", " ", "a{b:", "}", "é", "hat"];
        let (mut ids, mut whole) = (Vec::new(), Vec::<u8>::new());
        for (kind, byte) in picks {
            match kind {
                0..10 => {
                    let mark = ADDED.iter().chain(&["<|turn>", "<turn|>"]).nth(kind).unwrap();
                    ids.push(model.tokenizer.id_of(mark).unwrap());
                    whole.extend(char::from_u32(0xe000 + kind as u32).unwrap().to_string().as_bytes());
                }
                10..18 => {
                    ids.extend(model.tokenizer.encode(texts[kind - 10], false).unwrap());
                    whole.extend(texts[kind - 10].as_bytes());
                }
                _ => {
                    ids.push(8 + byte);
                    whole.push(byte as u8);
                }
            }
        }
        let whole = String::from_utf8_lossy(&whole).into_owned();
        // Bytes may spell a stand-in or another name of a channel by chance; then the model is no judge.
        prop_assume!(whole.matches(|c| ('\u{e000}'..='\u{e009}').contains(&c)).count() == ids.iter().filter(|id| {
            model.tokenizer.token(**id).is_some_and(|token| ADDED.contains(&token.as_str()) || token.contains("turn"))
        }).count());
        let parts = model.parts_of(PROMPT, &ids);
        let (content, thoughts, calls) = parted_at_once(&whole);
        prop_assert_eq!(solid(&parts.content), solid(&content));
        let broken: Vec<String> = parts.broken_calls.iter().map(|call| call.text.clone()).collect();
        prop_assert_eq!(broken, calls);
        // Channels of other names count as thoughts of the same text here.
        let named = parts.channels.iter().map(|(name, text)| format!("{name}{text}")).collect::<String>();
        let mut all: Vec<char> = (solid(&parts.reasoning.unwrap_or_default()) + &solid(&named)).chars().collect();
        let mut expected: Vec<char> = solid(&thoughts.concat()).chars().collect();
        // Thoughts and named channels are in an order of their own.
        all.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
    }

    #[test]
    fn calls_are_read_as_they_were_written(arguments in arguments(), cut in 0usize..400) {
        let text = format!("call:f{}", written(&Value::Object(arguments.clone())));
        for model in [Model::new(Some(USER_DEFINED)), Model::new(None)] {
            let parts = model.parts(PROMPT, &format!("{CALL_OPEN}{text}{CALL_CLOSE}"));
            prop_assert_eq!(&parts.tool_calls, &[ToolCall { name: "f".into(), arguments: arguments.clone() }]);
        }
        // Cut off anywhere it is given back.
        let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
        if cut < text.len() {
            let parts = Model::new(None).parts(PROMPT, &format!("{CALL_OPEN}{}", &text[..cut]));
            prop_assert_eq!(&parts.broken_calls[0].text, &text[..cut]);
        }
    }

    /// A model without marks: every piece comes when it came before, the same.
    #[test]
    fn without_marks_text_passes_at_once(ids in prop::collection::vec(0u32..500, 0..60)) {
        let mut assets = assets(Vocabulary::Gguf(small_vocabulary("gpt2")));
        assets.chat_template = Some("{{ messages[0].content }}".into());
        let tokenizer = Tokenizer::new(&assets).unwrap();
        let channels = Channels::new(&tokenizer, &ChatTemplate::new(&assets, &tokenizer).unwrap()).unwrap();
        let (mut parser, mut stream) = (channels.parser(&tokenizer, &[]), TextStream::new(&tokenizer));
        let content = |text: String| if text.is_empty() { vec![] } else { vec![AnswerEvent::Content(text)] };
        for id in ids {
            if !tokenizer.token(id).is_some_and(|token| token.contains("turn")) {
                prop_assert_eq!(parser.push(id), content(stream.push(id)));
            }
        }
        prop_assert_eq!(parser.finish(), content(stream.flush()));
    }
}
