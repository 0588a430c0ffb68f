//! Filters and tests of Jinja2 that minijinja lacks, or whose results differ there.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::filters::striptags;

use crate::text::jinja::arguments::both;
use crate::text::jinja::repr::{MAX_BYTES, to_str};
use crate::text::jinja::source::{CONCATENATE, REMAINDER};
use crate::text::jinja::tojson::tojson;
use crate::text::jinja::{operators, strings};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(CONCATENATE, operators::concatenate);
    environment.add_filter(REMAINDER, operators::remainder);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| to_str(value));
    environment.add_filter("trim", trim);
    environment.add_filter("join", join);
    environment.add_filter("float", float);
    environment.add_filter("format", format);
    environment.add_filter("indent", indent);
    environment.add_filter("truncate", truncate);
    environment.add_filter("center", center);
    environment.add_filter("wordcount", word_count);
    environment.add_filter("striptags", striptags);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("sort", sort);
    // minijinja's own breaks lines at other places.
    environment.remove_filter("pprint");
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_sequence);
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// Texts, mappings and lists have a length and items, and so have undefined values.
fn is_sequence(value: &Value) -> bool {
    let kinds = [ValueKind::String, ValueKind::Map, ValueKind::Seq, ValueKind::Iterable];
    kinds.contains(&value.kind()) || value.is_undefined()
}

fn failed(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.to_owned())
}

fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_true)
}

/// A size argument, limited to the length of one text.
fn size(value: Option<Value>, default: usize) -> Result<usize, Error> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(default) };
    match i64::try_from(value)? {
        size if size > MAX_BYTES as i64 => Err(failed("a width is too large")),
        size => Ok(size.max(0) as usize),
    }
}

fn trim(value: &Value, given: Rest<Value>, keywords: Kwargs) -> Result<String, Error> {
    let [characters] = both("trim", ["chars"], &given, &keywords)?;
    let text = to_str(value)?;
    let characters = characters.as_ref().and_then(Value::as_str);
    Ok(strings::strip(&text, "strip", characters).to_owned())
}

fn join(
    state: &mut State,
    value: &Value,
    given: Rest<Value>,
    keywords: Kwargs,
) -> Result<String, Error> {
    let [separator, attribute] = both("join", ["d", "attribute"], &given, &keywords)?;
    let separator = separator.map_or(Ok(String::new()), |separator| to_str(&separator))?;
    let value = match attribute.filter(|attribute| !attribute.is_none()) {
        Some(attribute) => {
            let attribute = Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[value.clone(), Value::from(attribute)])?
        }
        None => value.clone(),
    };
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&to_str(&item)?);
        if joined.len() > MAX_BYTES {
            return Err(failed("join: the text is too long"));
        }
    }
    Ok(joined)
}

/// Python's `float`, or the default where it fails.
fn float(value: &Value, given: Rest<Value>, keywords: Kwargs) -> Result<Value, Error> {
    let [default] = both("float", ["default"], &given, &keywords)?;
    let number = match value.as_str() {
        Some(text) => text.trim_matches(strings::is_space).replace('_', "").parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.map(Value::from).or(default).unwrap_or_else(|| Value::from(0.0)))
}

/// `text % arguments`. Keyword arguments are the mapping.
fn format(text: &str, given: Rest<Value>, keywords: Kwargs) -> Result<String, Error> {
    let has_keywords = keywords.args().next().is_some();
    let arguments = match (given.is_empty(), has_keywords) {
        (false, true) => {
            return Err(failed("format takes positional or keyword arguments, not both"));
        }
        (_, true) => {
            let pairs = keywords.args().map(|name| Ok((name, keywords.get::<Value>(name)?)));
            Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?)
        }
        _ => Value::from(minijinja::value::Tuple::from(given.0)),
    };
    operators::printf(text, &arguments)
}

fn indent(value: &Value, given: Rest<Value>, keywords: Kwargs) -> Result<String, Error> {
    let [width, first, blank] = both("indent", ["width", "first", "blank"], &given, &keywords)?;
    let indentation = match width.as_ref().and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => " ".repeat(size(width, 4)?),
    };
    let lines = to_str(value)? + "\n";
    let mut indented = String::new();
    for (index, line) in strings::split_lines(&lines, false).iter().enumerate() {
        let line = line.as_str().unwrap_or_default();
        if index > 0 {
            indented.push('\n');
        }
        if if index > 0 {
            !line.is_empty() || is_true(blank.as_ref())
        } else {
            is_true(first.as_ref())
        } {
            indented.push_str(&indentation);
        }
        indented.push_str(line);
        if indented.len() > MAX_BYTES {
            return Err(failed("indent: the text is too long"));
        }
    }
    Ok(indented)
}

fn truncate(value: &Value, given: Rest<Value>, keywords: Kwargs) -> Result<String, Error> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill_words, end, leeway] = both("truncate", names, &given, &keywords)?;
    let (length, leeway) = (size(length, 255)?, size(leeway, 5)?);
    let end = end.map_or(Ok("...".to_owned()), |end| to_str(&end))?;
    let text = to_str(value)?;
    if text.chars().count() <= length + leeway {
        return Ok(text);
    }
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| failed("truncate: the end is longer than the length"))?;
    let kept: String = text.chars().take(kept).collect();
    let words = kept.rsplit_once(' ').map_or(kept.as_str(), |(words, _)| words);
    Ok(if is_true(kill_words.as_ref()) { kept + &end } else { words.to_owned() + &end })
}

fn center(value: &Value, given: Rest<Value>, keywords: Kwargs) -> Result<Value, Error> {
    let [width] = both("center", ["width"], &given, &keywords)?;
    let width = Value::from(size(width, 80)?);
    let centered = strings::call(&to_str(value)?, "center", &[width])?;
    Ok(centered.unwrap_or_default())
}

fn word_count(value: &Value) -> Result<usize, Error> {
    let is_border = |c: char| c != '_' && !c.is_alphanumeric();
    Ok(to_str(value)?.split(is_border).filter(|word| !word.is_empty()).count())
}

/// Names positional arguments, because minijinja's filters take only keywords.
fn named<const N: usize>(names: [&'static str; N], given: [Option<Value>; N]) -> Kwargs {
    let given = names.into_iter().zip(given);
    given.filter_map(|(name, value)| value.map(|value| (name, value))).collect()
}

fn dictsort(value: &Value, given: Rest<Value>, keywords: Kwargs) -> Result<Value, Error> {
    let names = ["case_sensitive", "by", "reverse"];
    filters::dictsort(value, named(names, both("dictsort", names, &given, &keywords)?))
}

fn sort(state: &State, value: Value, given: Rest<Value>, keywords: Kwargs) -> Result<Value, Error> {
    let names = ["reverse", "case_sensitive", "attribute"];
    filters::sort(state, value, named(names, both("sort", names, &given, &keywords)?))
}
