//! Methods of Python's `str` that minijinja-contrib lacks, or whose results differ there.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::text::jinja::arguments::arguments;
use crate::text::jinja::repr::{MAX_BYTES, is_printable};

/// A method's result. `None` for unknown methods.
pub(super) fn call(text: &str, method: &str, given: &[Value]) -> Result<Option<Value>, Error> {
    let result = match method {
        "partition" | "rpartition" => partition(text, method, given)?,
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, method, given)?,
        "startswith" | "endswith" => has_affix(text, method, given)?,
        "split" | "rsplit" => split(text, method, given)?,
        "splitlines" => {
            let [keep] = arguments(method, ["keepends"], given)?;
            split_lines(text, keep.is_some_and(|keep| keep.is_true())).into_iter().collect()
        }
        "strip" | "lstrip" | "rstrip" => {
            let [characters] = arguments(method, ["chars"], given)?;
            Value::from(strip(text, method, string(method, characters.as_ref())?))
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = arguments(method, ["affix"], given)?;
            let affix = string(method, affix.as_ref())?.unwrap_or_default();
            let rest = match method {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            Value::from(rest.unwrap_or(text))
        }
        "zfill" | "ljust" | "rjust" | "center" => pad(text, method, given)?,
        "expandtabs" => {
            let [size] = arguments(method, ["tabsize"], given)?;
            Value::from(expand_tabs(text, width(method, size.as_ref(), Some(8))?)?)
        }
        "join" => join(text, given)?,
        "replace" => replace(text, given)?,
        _ => {
            let Some(result) = plain(text, method) else { return Ok(None) };
            let [] = arguments(method, [], given)?;
            result
        }
    };
    Ok(Some(result))
}

/// Methods without arguments.
fn plain(text: &str, method: &str) -> Option<Value> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    // Digits of other scripts count. Other characters with a numeric value do not.
    let superscript =
        |c: char| matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨');
    Some(match method {
        "casefold" => Value::from(text.to_lowercase().replace('ß', "ss").replace('ς', "σ")),
        "swapcase" => Value::from(text.chars().map(swap_case).collect::<String>()),
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "isspace" => Value::from(all(is_space)),
        "isprintable" => Value::from(text.chars().all(is_printable)),
        "isdecimal" => Value::from(all(is_decimal)),
        "isdigit" => {
            Value::from(!text.is_empty() && text.chars().all(|c| is_decimal(c) || superscript(c)))
        }
        "isidentifier" => Value::from(
            all(|c| c == '_' || c.is_alphanumeric()) && !text.starts_with(char::is_numeric),
        ),
        "istitle" => Value::from(title(text) == text && text.chars().any(char::is_alphabetic)),
        _ => return None,
    })
}

fn is_decimal(character: char) -> bool {
    // Blocks of ten decimal digits begin at a zero. Those of common scripts suffice.
    const ZEROS: [char; 12] = ['0', '٠', '۰', '०', '০', '੦', '૦', '୦', '௦', '౦', '๐', '０'];
    ZEROS.iter().any(|&zero| {
        (0..10).contains(&(i64::from(u32::from(character)) - i64::from(u32::from(zero))))
    })
}

/// Python's whitespace has four more separators than Unicode's White_Space.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

fn swap_case(character: char) -> String {
    match character.is_uppercase() {
        true => character.to_lowercase().collect(),
        false => character.to_uppercase().collect(),
    }
}

/// Capitalizes each letter that follows a non-letter.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut titled = String::with_capacity(text.len());
    for character in text.chars() {
        match std::mem::replace(&mut after_letter, character.is_alphabetic()) {
            true => titled.extend(character.to_lowercase()),
            false => titled.extend(character.to_uppercase()),
        }
    }
    titled
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().collect::<String>());
    first.unwrap_or_default() + &characters.as_str().to_lowercase()
}

fn failed(method: &str, reason: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{method}: {reason}"))
}

/// A text argument. `None` if it is missing or `none`.
fn string<'v>(method: &str, value: Option<&'v Value>) -> Result<Option<&'v str>, Error> {
    match value.filter(|value| !value.is_none()) {
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(failed(method, &format!("wants a text, not {}", value.kind()))),
        },
        None => Ok(None),
    }
}

fn required<'v>(method: &str, value: Option<&'v Value>) -> Result<&'v str, Error> {
    string(method, value)?.ok_or_else(|| failed(method, "wants a text"))
}

fn integer(method: &str, value: Option<&Value>) -> Result<Option<i64>, Error> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(None) };
    let number = i64::try_from(value.clone());
    number
        .map(Some)
        .map_err(|_| failed(method, &format!("wants a whole number, not {}", value.kind())))
}

fn width(method: &str, value: Option<&Value>, default: Option<i64>) -> Result<usize, Error> {
    let wanted =
        integer(method, value)?.or(default).ok_or_else(|| failed(method, "wants a width"))?;
    match usize::try_from(wanted.max(0)) {
        Ok(width) if width <= MAX_BYTES => Ok(width),
        _ => Err(failed(method, "the width is too large")),
    }
}

fn partition(text: &str, method: &str, given: &[Value]) -> Result<Value, Error> {
    let [separator] = arguments(method, ["sep"], given)?;
    let separator = required(method, separator.as_ref())?;
    if separator.is_empty() {
        return Err(failed(method, "the separator is empty"));
    }
    let parts = match method {
        "partition" => match text.split_once(separator) {
            Some((before, after)) => [before, separator, after],
            None => [text, "", ""],
        },
        _ => match text.rsplit_once(separator) {
            Some((before, after)) => [before, separator, after],
            None => ["", "", text],
        },
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// The part of `text` between two of Python's bounds, and the number of characters before it.
/// `None` if the range begins after the text's end, where even an empty text is not found.
fn part<'t>(
    text: &'t str,
    method: &str,
    [start, end]: [Option<Value>; 2],
) -> Result<Option<(&'t str, usize)>, Error> {
    let length = text.chars().count();
    let bound = |value: Option<Value>, default: usize| -> Result<usize, Error> {
        Ok(match integer(method, value.as_ref())? {
            Some(bound) if bound < 0 => length.saturating_sub(bound.unsigned_abs() as usize),
            Some(bound) => bound as usize,
            None => default,
        })
    };
    let (start, end) = (bound(start, 0)?, bound(end, length)?.min(length));
    if start > end {
        return Ok(None);
    }
    let byte = |count: usize| text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    Ok(Some((&text[byte(start)..byte(end)], start)))
}

fn search(text: &str, method: &str, given: &[Value]) -> Result<Value, Error> {
    let [wanted, start, end] = arguments(method, ["sub", "start", "end"], given)?;
    let wanted = required(method, wanted.as_ref())?;
    let (text, before) = match part(text, method, [start, end])? {
        Some((part, before)) => (Some(part), before),
        None => (None, 0),
    };
    if method == "count" {
        return Ok(Value::from(text.map_or(0, |text| text.matches(wanted).count())));
    }
    let found = text.and_then(|text| {
        let at = if method.starts_with('r') { text.rfind(wanted) } else { text.find(wanted) };
        at.map(|at| before + text[..at].chars().count())
    });
    match found {
        Some(index) => Ok(Value::from(index)),
        None if method.ends_with("find") => Ok(Value::from(-1)),
        None => Err(failed(method, "substring not found")),
    }
}

fn has_affix(text: &str, method: &str, given: &[Value]) -> Result<Value, Error> {
    let [affix, start, end] = arguments(method, ["affix", "start", "end"], given)?;
    let affix = affix.unwrap_or_default();
    let part = part(text, method, [start, end])?;
    let has = |affix: &str| match (part, method) {
        (None, _) => false,
        (Some((part, _)), "startswith") => part.starts_with(affix),
        (Some((part, _)), _) => part.ends_with(affix),
    };
    if let Some(affix) = affix.as_str() {
        return Ok(Value::from(has(affix)));
    }
    let Some(tuple) = affix.downcast_object_ref::<Tuple>() else {
        return Err(failed(
            method,
            &format!("wants a text or a tuple of texts, not {}", affix.kind()),
        ));
    };
    for affix in tuple.iter() {
        if has(required(method, Some(affix))?) {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

fn split(text: &str, method: &str, given: &[Value]) -> Result<Value, Error> {
    let [separator, most] = arguments(method, ["sep", "maxsplit"], given)?;
    let separator = string(method, separator.as_ref())?;
    let most = integer(method, most.as_ref())?.and_then(|most| usize::try_from(most).ok());
    let parts = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut words: Vec<&str> = match (separator, method) {
        (Some(""), _) => return Err(failed(method, "the separator is empty")),
        (Some(separator), "split") => text.splitn(parts, separator).collect(),
        (Some(separator), _) => text.rsplitn(parts, separator).collect(),
        (None, _) => words(text, parts, method == "rsplit"),
    };
    if method == "rsplit" {
        words.reverse();
    }
    Ok(words.into_iter().map(Value::from).collect())
}

/// Words between runs of whitespace, optionally from the end. With `most` words the last one is the
/// rest.
fn words(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let near_side = |rest: &'_ str| match from_end {
        true => rest.trim_end_matches(is_space).len(),
        false => rest.trim_start_matches(is_space).len(),
    };
    let mut rest = text;
    let mut words = Vec::new();
    loop {
        let length = near_side(rest);
        rest = if from_end { &rest[..length] } else { &rest[rest.len() - length..] };
        if rest.is_empty() {
            return words;
        }
        let border = match (words.len() + 1 >= most, from_end) {
            (true, _) => None,
            (_, false) => rest.split_once(is_space),
            (_, true) => rest.rsplit_once(is_space).map(|(before, word)| (word, before)),
        };
        let Some((word, others)) = border else {
            words.push(rest);
            return words;
        };
        words.push(word);
        rest = others;
    }
}

pub(super) fn split_lines(text: &str, keep_ends: bool) -> Vec<Value> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ENDS) {
        let first = rest[at..].chars().next().map_or(0, char::len_utf8);
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { first };
        lines.push(Value::from(&rest[..if keep_ends { end } else { at }]));
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    lines
}

/// `strip`, `lstrip` or `rstrip` of the given characters, or of whitespace.
pub(super) fn strip<'t>(text: &'t str, method: &str, characters: Option<&str>) -> &'t str {
    let stripped =
        |c: char| characters.map_or_else(|| is_space(c), |characters| characters.contains(c));
    match method {
        "lstrip" => text.trim_start_matches(stripped),
        "rstrip" => text.trim_end_matches(stripped),
        _ => text.trim_matches(stripped),
    }
}

fn pad(text: &str, method: &str, given: &[Value]) -> Result<Value, Error> {
    let [wanted, fill] = arguments(method, ["width", "fillchar"], given)?;
    let wanted = width(method, wanted.as_ref(), None)?;
    let fill = string(method, fill.as_ref())?.unwrap_or(if method == "zfill" { "0" } else { " " });
    if fill.chars().count() != 1 {
        return Err(failed(method, "the fill is not one character"));
    }
    let missing = wanted.saturating_sub(text.chars().count());
    // For odd widths an extra space goes to the left, as in CPython.
    let left = match method {
        "ljust" => 0,
        "center" => missing / 2 + (missing & wanted & 1),
        _ => missing,
    };
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) if method == "zfill" => text.split_at(text.len() - digits.len()),
        _ => ("", text),
    };
    Ok(Value::from(format!("{sign}{}{digits}{}", fill.repeat(left), fill.repeat(missing - left))))
}

fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let mut expanded = String::new();
    let mut column = 0;
    for character in text.chars() {
        match character {
            '\t' if size == 0 => {}
            '\t' => {
                let spaces = size - column % size;
                if expanded.len() + spaces > MAX_BYTES {
                    return Err(failed("expandtabs", "the width is too large"));
                }
                expanded.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            _ => {
                column = if matches!(character, '\n' | '\r') { 0 } else { column + 1 };
                expanded.push(character);
            }
        }
    }
    Ok(expanded)
}

fn join(text: &str, given: &[Value]) -> Result<Value, Error> {
    let [items] = arguments("join", ["iterable"], given)?;
    let mut joined = String::new();
    for (index, item) in items.unwrap_or_default().try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(text);
        }
        joined.push_str(required("join", Some(&item))?);
        if joined.len() > MAX_BYTES {
            return Err(failed("join", "the text is too long"));
        }
    }
    Ok(Value::from(joined))
}

fn replace(text: &str, given: &[Value]) -> Result<Value, Error> {
    let [old, new, count] = arguments("replace", ["old", "new", "count"], given)?;
    let (old, new) = (required("replace", old.as_ref())?, required("replace", new.as_ref())?);
    let count = integer("replace", count.as_ref())?.and_then(|count| usize::try_from(count).ok());
    let most = text.matches(old).count().min(count.unwrap_or(usize::MAX));
    if most.saturating_mul(new.len()) > MAX_BYTES {
        return Err(failed("replace", "the text is too long"));
    }
    Ok(Value::from(text.replacen(old, new, most)))
}

/// The type's name in the message about a missing method of `value`.
pub(super) fn kind_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::String => "str",
        ValueKind::Map => "dict",
        ValueKind::Seq if value.downcast_object_ref::<Tuple>().is_some() => "tuple",
        ValueKind::Seq | ValueKind::Iterable => "list",
        ValueKind::Number => "number",
        _ => "this value",
    }
}
