//! Random answers: nothing is lost, and calls are read as they were written.

use super::{
    channels::{ADDED, CALL_CLOSE, CALL_OPEN, CONTROL, Model, PROMPT, QUOTE, USER_DEFINED},
    fixtures::{assets, small_vocabulary},
};
use gemma4_wgpu::text::{AnswerEvent, Channels, ChatTemplate, TextStream, Tokenizer};
use gemma4_wgpu::text::{ToolCall, Vocabulary};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Characters that replace the marks in a whole text: [`ADDED`], then `<|turn>` and `<turn|>`.
const MARKS: [char; 10] = [
    '\u{e000}', // <|channel>
    '\u{e001}', // <channel|>
    '\u{e002}', // <|tool_call>
    '\u{e003}', // <tool_call|>
    '\u{e004}', // <|"|>
    '\u{e005}', // <|tool_response>
    '\u{e006}', // <tool_response|>
    '\u{e007}', // <|think|>
    '\u{e008}', // <|turn>
    '\u{e009}', // <turn|>
];

/// The marks that end an open part.
const ENDS: [char; 6] = [MARKS[0], MARKS[2], MARKS[5], MARKS[6], MARKS[8], MARKS[9]];

/// The parts of an answer without well-formed calls, found from its whole text at once.
/// The text has [`MARKS`] in place of marks.
fn parted_at_once(answer: &str) -> (String, Vec<String>, Vec<String>) {
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
            let end = text_end(inner, &[&ENDS[..], &[MARKS[1]]].concat());
            let body = inner[..end].replace(|c| MARKS.contains(&c), "");
            let is_cut = end == inner.len() && "thought".starts_with(&body);
            thoughts.push(if is_cut { String::new() } else { channel_text(&body) });
            let closed = inner[end..].strip_prefix(MARKS[1]);
            rest = closed.unwrap_or(&inner[end..]);
        } else if mark == MARKS[2] {
            let ends = |(at, c): &(usize, char)| {
                let is_string = inner[..*at].matches(MARKS[4]).count() % 2 == 1;
                *c == MARKS[3] || (!is_string && ENDS.contains(c))
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

/// A channel's text. A name other than `thought` comes before it.
fn channel_text(body: &str) -> String {
    let (line, text) = body.split_once('\n').unwrap_or((body, ""));
    let is_plain = |c: char| c.is_alphanumeric() || "_-".contains(c);
    let is_name = line.len() <= 32 && line.trim_end().chars().all(is_plain);
    match line.trim_end() {
        _ if !is_name => body.to_owned(),
        "thought" => text.to_owned(),
        name => format!("{name}{text}"),
    }
}

/// The text without whitespace, which may be trimmed.
fn solid(text: &str) -> String {
    text.split_whitespace().collect()
}

/// A value in the form of Gemma 4's template.
fn written(value: &Value) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key}:{}", written(value));
    match value {
        Value::String(text) => format!("{QUOTE}{text}{QUOTE}"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            format!("[{}]", items.join(","))
        }
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
            prop::collection::btree_map(key, inner, 0..4).prop_map(Value::from_iter),
        ]
    });
    prop::collection::btree_map(key, value, 0..4).prop_map(|map| map.into_iter().collect())
}

proptest! {
    /// No token of any sequence is lost, and each has the place that the whole text gives it.
    #[test]
    fn any_tokens_are_parted_as_their_whole_text(
        picks in prop::collection::vec((0usize..24, 0u32..256), 0..50),
    ) {
        let model = Model::new(Some(CONTROL));
        let texts = ["thought", "\n", "the", " ", "a{b:", "}", "é", "hat"];
        let (mut ids, mut whole) = (Vec::new(), Vec::<u8>::new());
        for (kind, byte) in picks {
            match kind {
                0..10 => {
                    let mark = ADDED.iter().chain(&["<|turn>", "<turn|>"]).nth(kind).unwrap();
                    ids.push(model.tokenizer.id_of(mark).unwrap());
                    whole.extend(MARKS[kind].to_string().as_bytes());
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
        // Bytes may by chance spell a stand-in. Then the whole text proves nothing.
        let is_mark = |id: &&u32| {
            let token = model.tokenizer.token(**id).unwrap_or_default();
            ADDED.contains(&token.as_str()) || token.contains("turn|") || token.contains("|turn")
        };
        let marks = ids.iter().filter(is_mark).count();
        prop_assume!(whole.chars().filter(|c| MARKS.contains(c)).count() == marks);
        let parts = model.parts_of(PROMPT, &ids);
        let (content, thoughts, calls) = parted_at_once(&whole);
        prop_assert_eq!(solid(&parts.content), solid(&content));
        let broken: Vec<String> = parts.broken_calls.iter().map(|call| call.text.clone()).collect();
        prop_assert_eq!(broken, calls);
        // Channels with other names count as thoughts with the same text here.
        let named = parts.channels.iter().map(|(name, text)| format!("{name}{text}"));
        let named: String = named.chain(parts.reasoning.clone()).collect();
        let mut all: Vec<char> = solid(&named).chars().collect();
        let mut expected: Vec<char> = solid(&thoughts.concat()).chars().collect();
        // The order of thoughts and named channels is not compared.
        all.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
    }

    #[test]
    fn calls_are_read_as_they_were_written(arguments in arguments(), cut in 0usize..400) {
        let text = format!("call:f{}", written(&Value::Object(arguments.clone())));
        for model in [Model::new(Some(USER_DEFINED)), Model::new(None)] {
            let parts = model.parts(PROMPT, &format!("{CALL_OPEN}{text}{CALL_CLOSE}"));
            let expected = ToolCall::new("f", arguments.clone());
            prop_assert_eq!(&parts.tool_calls, &[expected]);
        }
        // A call that is cut anywhere is returned as text.
        let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
        if cut < text.len() {
            let parts = Model::new(None).parts(PROMPT, &format!("{CALL_OPEN}{}", &text[..cut]));
            prop_assert_eq!(&parts.broken_calls[0].text, &text[..cut]);
        }
    }

    /// Without marks, every piece comes at the same time as before and is the same.
    #[test]
    fn without_marks_text_passes_at_once(ids in prop::collection::vec(0u32..500, 0..60)) {
        let mut assets = assets(Vocabulary::Gguf(small_vocabulary("gpt2")));
        assets.chat_template = Some("{{ messages[0].content }}".into());
        let tokenizer = Tokenizer::new(&assets).unwrap();
        let template = ChatTemplate::new(&assets, &tokenizer).unwrap();
        let channels = Channels::new(&tokenizer, &template).unwrap();
        let mut parser = channels.parser(&tokenizer, &[]);
        let mut stream = TextStream::new(&tokenizer);
        let content = |text: String| match text.as_str() {
            "" => vec![],
            _ => vec![AnswerEvent::Content(text)],
        };
        for id in ids {
            if !tokenizer.token(id).is_some_and(|token| token.contains("turn")) {
                prop_assert_eq!(parser.push(id), content(stream.push(id)));
            }
        }
        prop_assert_eq!(parser.finish(), content(stream.flush()));
    }
}
