//! Tool calls: `call:NAME{key:<|"|>text<|"|>,other:[1,true,null]}`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::{error::Result, text::channels::spellings::QUOTE};

/// Most nested arrays and maps. Sensible arguments are not deeper.
const DEEPEST: usize = 64;

/// A tool call.
///
/// Its JSON is that of transformers' chat templates: `{"type": "function", "function": {"name": …,
/// "arguments": {…}}}`. Arguments may also be a string of JSON, which OpenAI's clients send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub struct ToolCall {
    /// The name by which a result refers to the call, if it has one.
    pub id: Option<String>,
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// A call that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenCall {
    /// The text between the call's marks, with other marks spelled out.
    pub text: String,
    /// The reason.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", default = "function")]
    kind: String,
    function: Function,
}

#[derive(Serialize, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
}

fn function() -> String {
    "function".to_owned()
}

impl From<ToolCall> for Wire {
    fn from(call: ToolCall) -> Wire {
        let arguments = Value::Object(call.arguments);
        Wire { id: call.id, kind: function(), function: Function { name: call.name, arguments } }
    }
}

impl TryFrom<Wire> for ToolCall {
    type Error = String;

    fn try_from(wire: Wire) -> Result<ToolCall, String> {
        let (id, Function { name, arguments }) = (wire.id, wire.function);
        let arguments = match arguments {
            Value::String(text) if text.trim().is_empty() => Value::Null,
            Value::String(text) => serde_json::from_str(&text)
                .map_err(|error| format!("the arguments of {name:?} are no JSON: {error}"))?,
            arguments => arguments,
        };
        match arguments {
            Value::Object(arguments) => Ok(ToolCall { id, name, arguments }),
            Value::Null => Ok(ToolCall { id, name, arguments: Map::new() }),
            _ => Err(format!("the arguments of {name:?} are no JSON object")),
        }
    }
}

impl ToolCall {
    /// A call without an id.
    pub fn new(name: impl Into<String>, arguments: Map<String, Value>) -> ToolCall {
        ToolCall { id: None, name: name.into(), arguments }
    }

    /// Its name, and all texts of its arguments.
    pub(in crate::text) fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = self.id.as_deref().into_iter().chain([&*self.name]).collect();
        for (key, value) in &self.arguments {
            texts.push(key);
            collect_texts(value, &mut texts);
        }
        texts
    }

    /// The same call with replaced texts.
    pub(in crate::text) fn with_texts(&self, change: &mut Change<'_>) -> Result<ToolCall> {
        let arguments = changed_map(&self.arguments, change)?;
        let id = self.id.as_deref().map(&mut *change).transpose()?;
        Ok(ToolCall { id, name: change(&self.name)?, arguments })
    }
}

/// Adds all strings and keys of `value` to `texts`.
pub(in crate::text) fn collect_texts<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            texts.push(key);
            collect_texts(item, texts);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The replacement of a text.
type Change<'a> = dyn FnMut(&str) -> Result<String> + 'a;

fn changed_map(map: &Map<String, Value>, change: &mut Change<'_>) -> Result<Map<String, Value>> {
    map.iter().map(|(key, item)| Ok((change(key)?, changed(item, change)?))).collect()
}

/// The same value with replaced strings and keys.
pub(in crate::text) fn changed(value: &Value, change: &mut Change<'_>) -> Result<Value> {
    Ok(match value {
        Value::String(text) => Value::String(change(text)?),
        Value::Array(items) => {
            let items = items.iter().map(|item| changed(item, change));
            Value::Array(items.collect::<Result<_>>()?)
        }
        Value::Object(map) => Value::Object(changed_map(map, change)?),
        other => other.clone(),
    })
}

/// The text of a call while it arrives.
#[derive(Default)]
pub(super) struct CallText {
    text: String,
    /// Offsets of quote marks in it. Ordinary text cannot spell these.
    quotes: Vec<usize>,
}

impl CallText {
    pub(super) fn push(&mut self, text: &str) {
        self.text += text;
    }

    pub(super) fn quote(&mut self, spelling: &str) {
        self.quotes.push(self.text.len());
        self.text += spelling;
    }

    pub(super) fn in_string(&self) -> bool {
        self.quotes.len() % 2 == 1
    }
}

/// Parses the text between a call's marks: one call, or several without marks between them. Returns
/// the rest from the first fault on as a broken call. `closed` says whether the end mark came.
pub(super) fn read(call: CallText, closed: bool) -> (Vec<ToolCall>, Option<BrokenCall>) {
    let CallText { text, quotes } = call;
    let mut calls = Vec::new();
    let mut cursor = Cursor { text: &text, at: 0, quotes: &quotes };
    loop {
        let start = cursor.at;
        match cursor.call() {
            Ok(call) => calls.push(call),
            Err(reason) => {
                let unfinished = if closed { "" } else { "the answer leaves it unfinished: " };
                let reason = format!("{unfinished}{reason}");
                return (calls, Some(BrokenCall { text: text[start..].to_owned(), reason }));
            }
        }
        cursor.skip_spaces();
        if cursor.rest().is_empty() {
            return (calls, None);
        }
    }
}

/// A parser of a call's text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    quotes: &'a [usize],
}

type Read<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Skips spaces and `token`, if it comes next.
    fn eat(&mut self, token: &str) -> bool {
        self.skip_spaces();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Text up to one of `ends`, a quote or the end, trimmed.
    fn bare(&mut self, ends: &[char]) -> &'a str {
        let start = self.at;
        let end = self.rest().find(ends).map_or(self.text.len(), |len| start + len);
        let quote = self.quotes.iter().copied().find(|&quote| quote >= start);
        self.at = quote.map_or(end, |quote| quote.min(end));
        self.text[start..self.at].trim()
    }

    fn call(&mut self) -> Read<ToolCall> {
        if !self.eat("call:") {
            return Err("it does not begin with call:NAME{".into());
        }
        let name = self.bare(&['{']);
        if name.is_empty() || name.contains(char::is_whitespace) || !self.eat("{") {
            return Err("no name and { follow call:".into());
        }
        Ok(ToolCall::new(name, self.map(1)?))
    }

    /// The rest of a map, after its brace.
    fn map(&mut self, depth: usize) -> Read<Map<String, Value>> {
        let mut map = Map::new();
        if self.eat("}") {
            return Ok(map);
        }
        loop {
            let key = self.key()?;
            if !self.eat(":") {
                return Err(format!("no : follows the key {key:?}"));
            }
            let value = self.value(depth)?;
            // As in JSON parsers, the last value of a key counts.
            map.insert(key.clone(), value);
            if self.eat("}") {
                return Ok(map);
            }
            if !self.eat(",") {
                return Err(format!("neither , nor }} follows the value of {key:?}"));
            }
        }
    }

    fn key(&mut self) -> Read<String> {
        if let Some(text) = self.string() {
            return text;
        }
        match self.bare(&[':', ',', '{', '}', '[', ']']) {
            "" => Err("a key is missing".into()),
            key => Ok(key.to_owned()),
        }
    }

    fn value(&mut self, depth: usize) -> Read<Value> {
        if depth > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        if let Some(text) = self.string() {
            return text.map(Value::String);
        }
        if self.eat("{") {
            return self.map(depth + 1).map(Value::Object);
        }
        if self.eat("[") {
            return self.array(depth + 1).map(Value::Array);
        }
        match self.bare(&[',', ':', '{', '}', '[', ']']) {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            // Some templates write the latter.
            "null" | "None" => Ok(Value::Null),
            number => self::number(number),
        }
    }

    /// The rest of an array, after its bracket.
    fn array(&mut self, depth: usize) -> Read<Vec<Value>> {
        let mut items = Vec::new();
        if self.eat("]") {
            return Ok(items);
        }
        loop {
            items.push(self.value(depth)?);
            if self.eat("]") {
                return Ok(items);
            }
            if !self.eat(",") {
                return Err("neither , nor ] follows an item of an array".into());
            }
        }
    }

    /// A string between quote marks, or a JSON string, if one comes next.
    fn string(&mut self) -> Option<Read<String>> {
        self.skip_spaces();
        if let Some(index) = self.quotes.iter().position(|&quote| quote == self.at) {
            let start = self.at + QUOTE.len();
            let Some(&end) = self.quotes.get(index + 1) else {
                return Some(Err("a string has no end".into()));
            };
            self.at = end + QUOTE.len();
            return Some(Ok(self.text[start..end].to_owned()));
        }
        if !self.rest().starts_with('"') {
            return None;
        }
        let mut strings = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        match strings.next() {
            Some(Ok(text)) => {
                self.at += strings.byte_offset();
                Some(Ok(text))
            }
            _ => Some(Err("a string in double quotes has no end".into())),
        }
    }
}

/// A number as JSON writes it. Integers of more than 64 bits would lose digits.
fn number(text: &str) -> Read<Value> {
    let number: Option<Number> = serde_json::from_str(text).ok();
    let is_integer = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match number {
        Some(number) if number.is_f64() && is_integer => Err(format!("{text} exceeds 64 bits")),
        // serde_json's own parsing of a fraction may differ in the last bit.
        Some(number) if number.is_f64() => {
            let exact = text.parse().ok().and_then(Number::from_f64);
            Ok(Value::Number(exact.unwrap_or(number)))
        }
        Some(number) => Ok(Value::Number(number)),
        None => Err(format!("{text:?} is no value")),
    }
}
