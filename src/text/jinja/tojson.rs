//! The filter `tojson` of transformers: Python's `json.dumps`, by default without `ensure_ascii`.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::text::jinja::arguments::both;
use crate::text::jinja::repr::{check, float_of, float_repr};
use crate::text::marks::is_stand_in;

pub(super) fn tojson(value: &Value, given: Rest<Value>, keywords: Kwargs) -> Result<Value, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = both("tojson", names, &given, &keywords)?;
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| indentation(&indent));
    let indent = indent.transpose()?;
    let comma = if indent.is_some() { "," } else { ", " };
    let (item, key) = match separators.filter(|separators| !separators.is_none()) {
        Some(separators) => both_separators(&separators)?,
        None => (comma.to_owned(), ": ".to_owned()),
    };
    let is_true = |option: Option<Value>| option.is_some_and(|option| option.is_true());
    let mut writer = Writer {
        out: String::new(),
        ensure_ascii: is_true(ensure_ascii),
        sort_keys: is_true(sort_keys),
        indent,
        item,
        key,
    };
    writer.value(value, 0)?;
    Ok(Value::from_safe_string(writer.out))
}

fn failed(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {}", reason.into()))
}

/// One level's indentation: a text, or a number of spaces. Below zero there is none.
fn indentation(indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    match i64::try_from(indent.clone()) {
        Ok(count @ ..=1024) => Ok(" ".repeat(count.max(0) as usize)),
        _ => Err(failed(format!("indent {indent} is neither a text nor a count up to 1024"))),
    }
}

fn both_separators(pair: &Value) -> Result<(String, String), Error> {
    let parts: Vec<Value> = pair.try_iter()?.collect();
    match parts.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
        [Some(item), Some(key)] => Ok((item.to_owned(), key.to_owned())),
        _ => Err(failed("separators are two texts")),
    }
}

struct Writer {
    out: String,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    /// The separators between items, and between a key and its value.
    item: String,
    key: String,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        check(&self.out, depth)?;
        match value.kind() {
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            kind => match scalar(value) {
                Some(text) => self.out.push_str(&text),
                None => return Err(failed(format!("a value of type {kind} cannot be written"))),
            },
        }
        Ok(())
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in list.try_iter()? {
            self.next_item(&mut empty, depth);
            self.value(&item, depth + 1)?;
        }
        self.end(empty, depth, ']');
        Ok(())
    }

    fn object(&mut self, object: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('{');
        let mut empty = true;
        for key in self.keys(object)? {
            self.next_item(&mut empty, depth);
            match key.as_str().map(str::to_owned).or_else(|| scalar(&key)) {
                Some(text) => self.string(&text),
                None => {
                    return Err(failed(format!("a key of type {} cannot be written", key.kind())));
                }
            }
            self.out.push_str(&self.key);
            self.value(&object.get_item(&key)?, depth + 1)?;
        }
        self.end(empty, depth, '}');
        Ok(())
    }

    /// Keys in their order, or sorted where Python can compare all of them.
    fn keys(&self, object: &Value) -> Result<Vec<Value>, Error> {
        let mut keys: Vec<Value> = object.try_iter()?.collect();
        if self.sort_keys && keys.len() > 1 {
            let is_number = |key: &Value| matches!(key.kind(), ValueKind::Number | ValueKind::Bool);
            if !keys.iter().all(|key| key.as_str().is_some()) && !keys.iter().all(is_number) {
                return Err(failed("sort_keys cannot compare keys of several types"));
            }
            keys.sort();
        }
        Ok(keys)
    }

    fn next_item(&mut self, empty: &mut bool, depth: usize) {
        if !std::mem::replace(empty, false) {
            self.out.push_str(&self.item);
        }
        self.new_line(depth + 1);
    }

    fn end(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.escape(character),
                '\u{7f}'.. if self.ensure_ascii && !is_stand_in(character) => {
                    self.escape(character)
                }
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}

/// Values that are neither text nor container.
fn scalar(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::None => Some("null".into()),
        ValueKind::Bool => Some(if value.is_true() { "true" } else { "false" }.into()),
        ValueKind::Number => Some(match float_of(value) {
            Some(float) if float.is_nan() => "NaN".into(),
            Some(float) if float.is_infinite() => {
                if float > 0.0 { "Infinity" } else { "-Infinity" }.into()
            }
            Some(float) => float_repr(float),
            None => value.to_string(),
        }),
        _ => None,
    }
}
