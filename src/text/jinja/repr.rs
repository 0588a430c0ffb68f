//! Values as Python's `str` and `repr` write them.

use std::sync::LazyLock;

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use regex::Regex;

use crate::text::marks::is_stand_in;

/// Most bytes of one text, and most levels of nesting. Each step of a template can double a value.
pub(super) const MAX_BYTES: usize = 1 << 26;
pub(super) const MAX_DEPTH: usize = 200;

/// Python's `str(value)`. Undefined values give an empty text.
pub(super) fn to_str(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        _ => to_repr(value),
    }
}

/// Python's `repr(value)`.
pub(super) fn to_repr(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_repr(&mut text, value, 0)?;
    Ok(text)
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    check(out, depth)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::Seq if value.downcast_object_ref::<Tuple>().is_some() => {
            let single = value.len() == Some(1);
            write_items(out, value, depth, ["(", if single { ",)" } else { ")" }])?;
        }
        ValueKind::Seq => write_items(out, value, depth, ["[", "]"])?,
        // A lazy slice of a list. Ranges print themselves.
        ValueKind::Iterable => {
            let own = value.to_string();
            match own.starts_with('[') {
                true => write_items(out, value, depth, ["[", "]"])?,
                false => out.push_str(&own),
            }
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_items(
    out: &mut String,
    items: &Value,
    depth: usize,
    [open, close]: [&str; 2],
) -> Result<(), Error> {
    out.push_str(open);
    for (index, item) in items.try_iter()?.enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        write_repr(out, &item, depth + 1)?;
    }
    out.push_str(close);
    Ok(())
}

/// Errors: more text or nesting than a sensible template has.
pub(super) fn check(out: &str, depth: usize) -> Result<(), Error> {
    match (out.len() > MAX_BYTES, depth > MAX_DEPTH) {
        (true, _) => {
            Err(Error::new(ErrorKind::InvalidOperation, "the text of a value is too long"))
        }
        (_, true) => Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply")),
        _ => Ok(()),
    }
}

/// A number as Python prints it.
pub(super) fn number(value: &Value) -> String {
    match float_of(value) {
        Some(float) => float_repr(float),
        None => value.to_string(),
    }
}

/// The value of a float. `None` for integers and other values.
pub(super) fn float_of(value: &Value) -> Option<f64> {
    (value.is_number() && !value.is_integer()).then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// Python's `repr(float)`: the fewest digits that identify the number. It has an exponent from 1e16
/// on and below 1e-4.
pub(super) fn float_repr(float: f64) -> String {
    if !float.is_finite() {
        return if float.is_nan() { "nan".into() } else { float.to_string() };
    }
    let text = format!("{float:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}

/// A string literal of Python, with the quote that needs fewer escapes.
fn write_quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if character == quote => out.extend(['\\', quote]),
            _ if is_stand_in(character) || is_printable(character) => out.push(character),
            _ => out.push_str(&escape(character)),
        }
    }
    out.push(quote);
}

fn escape(character: char) -> String {
    match u32::from(character) {
        code @ ..0x100 => format!("\\x{code:02x}"),
        code @ ..0x10000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// Python's `str.isprintable` of one character.
pub(super) fn is_printable(character: char) -> bool {
    static HIDDEN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{C}\p{Z}]$").ok());
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    !HIDDEN.as_ref().is_some_and(|hidden| hidden.is_match(character.encode_utf8(&mut [0; 4])))
}
