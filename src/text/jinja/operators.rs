//! Python's operators `~` and `%`.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::text::jinja::repr::{MAX_BYTES, float_of, to_repr, to_str};

fn failed(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

/// The operator `~`.
pub(super) fn concatenate(first: &Value, others: Rest<Value>) -> Result<String, Error> {
    let mut text = to_str(first)?;
    for other in others.iter() {
        text.push_str(&to_str(other)?);
    }
    Ok(text)
}

/// The operator `%`. A text on its left is a format.
pub(super) fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        return printf(text, right).map(Value::from);
    }
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(left) || !is_number(right) {
        return Err(failed(format!("% of {} and {} is undefined", left.kind(), right.kind())));
    }
    let zero = || failed("% by zero");
    if float_of(left).is_some() || float_of(right).is_some() {
        let (left, right) = (as_float(left)?, as_float(right)?);
        return if right == 0.0 {
            Err(zero())
        } else {
            Ok(Value::from(float_remainder(left, right)))
        };
    }
    let (left, right) = (as_integer(left)?, as_integer(right)?);
    // The divisor gives the sign. `i128::MIN % -1` overflows, and its result is zero.
    let remainder = left.checked_rem(right).or((right == -1).then_some(0)).ok_or_else(zero)?;
    let other_sign = remainder != 0 && (remainder < 0) != (right < 0);
    Ok(Value::from(if other_sign { remainder + right } else { remainder }))
}

fn as_integer(value: &Value) -> Result<i128, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(i128::from(value.is_true())),
        _ => i128::try_from(value.clone()),
    }
}

fn as_float(value: &Value) -> Result<f64, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(f64::from(u8::from(value.is_true()))),
        _ => match float_of(value) {
            Some(float) => Ok(float),
            None => as_integer(value).map(|integer| integer as f64),
        },
    }
}

fn float_remainder(left: f64, right: f64) -> f64 {
    let remainder = left % right;
    match remainder {
        0.0 => 0f64.copysign(right),
        _ if (remainder < 0.0) != (right < 0.0) => remainder + right,
        _ => remainder,
    }
}

/// One directive of a format: `%(key)flags width .precision letter`.
struct Directive<'f> {
    key: Option<&'f str>,
    flags: &'f str,
    width: &'f str,
    precision: Option<&'f str>,
    letter: char,
}

/// Python's `text % arguments`. Errors: too many or few arguments, an unknown directive, an
/// argument that does not fit its directive.
pub(super) fn printf(text: &str, arguments: &Value) -> Result<String, Error> {
    let tuple = arguments.downcast_object_ref::<Tuple>().map(|tuple| tuple.to_vec());
    let is_tuple = tuple.is_some();
    let mut values = tuple.unwrap_or_else(|| vec![arguments.clone()]).into_iter();
    let mut take = || values.next().ok_or_else(|| failed("% has too few arguments for its format"));
    let mut out = String::new();
    let mut rest = text;
    let mut keyed = false;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (directive, after) = directive(after)?;
        rest = after;
        let mut flags = directive.flags.to_owned();
        let mut size = |size: &str| match size {
            "*" => take().and_then(|value| as_integer(&value)),
            "" => Ok(0),
            digits => digits.parse().map_err(|_| failed("% has a width out of range")),
        };
        let mut width = size(directive.width)?;
        let precision = directive.precision.map(&mut size).transpose()?;
        if width < 0 {
            flags.push('-');
            width = -width;
        }
        if width > 1 << 16 || precision.is_some_and(|precision| precision > 1 << 16) {
            return Err(failed("% has a width out of range"));
        }
        let precision = precision.map(|precision| precision.max(0));
        if directive.letter == '%' {
            out.push('%');
            continue;
        }
        let value = match directive.key {
            Some(key) if arguments.kind() == ValueKind::Map => {
                keyed = true;
                let value = arguments.get_item(&Value::from(key))?;
                Some(value)
                    .filter(|value| !value.is_undefined())
                    .ok_or_else(|| failed(format!("% has no argument '{key}'")))?
            }
            Some(key) => return Err(failed(format!("%({key}) wants a mapping"))),
            None => take()?,
        };
        out.push_str(&converted(&value, directive.letter, &flags, width, precision)?);
        if out.len() > MAX_BYTES {
            return Err(failed("% writes too long a text"));
        }
    }
    out.push_str(rest);
    let is_mapping = arguments.kind() == ValueKind::Map;
    let is_list = arguments.kind() == ValueKind::Seq && !is_tuple;
    // Python accepts an unused mapping or list.
    match values.next().is_some() && !keyed && !is_mapping && !is_list {
        true => Err(failed("% has more arguments than its format")),
        false => Ok(out),
    }
}

/// The directive after a `%`, and the rest of the text.
fn directive(text: &str) -> Result<(Directive<'_>, &str), Error> {
    let incomplete = || failed("% ends its format with an incomplete directive");
    let (key, rest) = match text.strip_prefix('(') {
        Some(rest) => {
            rest.split_once(')').map(|(key, rest)| (Some(key), rest)).ok_or_else(incomplete)?
        }
        None => (None, text),
    };
    let split = |rest: &'_ str, set: &[char]| rest.len() - rest.trim_start_matches(set).len();
    let digits: Vec<char> = ('0'..='9').collect();
    let number = |rest: &str| if rest.starts_with('*') { 1 } else { split(rest, &digits) };
    let (flags, rest) = rest.split_at(split(rest, &['#', '0', '-', ' ', '+']));
    let (width, rest) = rest.split_at(number(rest));
    let (precision, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (precision, rest) = rest.split_at(number(rest));
            (Some(precision), rest)
        }
        None => (None, rest),
    };
    let rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let letter = rest.chars().next().ok_or_else(incomplete)?;
    if !"diouxXeEfFgGcrsa%".contains(letter) {
        return Err(failed(format!("%{letter} is no directive of a format")));
    }
    Ok((Directive { key, flags, width, precision, letter }, &rest[letter.len_utf8()..]))
}

fn converted(
    value: &Value,
    letter: char,
    flags: &str,
    width: i128,
    precision: Option<i128>,
) -> Result<String, Error> {
    let text = match letter {
        's' => to_str(value)?,
        'r' => to_repr(value)?,
        'a' => ascii(&to_repr(value)?),
        'c' => character(value)?,
        _ => return number(value, letter, flags, width, precision),
    };
    let most =
        precision.filter(|_| letter != 'c').map_or(usize::MAX, |precision| precision as usize);
    let text: String = text.chars().take(most).collect();
    let missing = " ".repeat((width as usize).saturating_sub(text.chars().count()));
    Ok(if flags.contains('-') { text + &missing } else { missing + &text })
}

/// Python's `ascii` of a `repr`.
fn ascii(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match u32::from(character) {
            ..0x80 => escaped.push(character),
            code @ ..0x100 => escaped.push_str(&format!("\\x{code:02x}")),
            code @ ..0x10000 => escaped.push_str(&format!("\\u{code:04x}")),
            code => escaped.push_str(&format!("\\U{code:08x}")),
        }
    }
    escaped
}

fn character(value: &Value) -> Result<String, Error> {
    let wanted = || failed("%c wants a character or its code");
    if let Some(text) = value.as_str() {
        return if text.chars().count() == 1 { Ok(text.to_owned()) } else { Err(wanted()) };
    }
    let code = u32::try_from(as_integer(value).map_err(|_| wanted())?).map_err(|_| wanted())?;
    char::from_u32(code).map(String::from).ok_or_else(wanted)
}

/// Formats a number with minijinja's printf, after conversion to the type that Python would use.
fn number(
    value: &Value,
    letter: char,
    flags: &str,
    width: i128,
    precision: Option<i128>,
) -> Result<String, Error> {
    let is_number = matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let wanted = || failed(format!("%{letter} wants a number, not {}", value.kind()));
    let argument = match letter {
        _ if !is_number => return Err(wanted()),
        'd' | 'i' | 'u' => match float_of(value) {
            Some(float) if float.is_finite() => Value::from(float.trunc() as i128),
            Some(_) => return Err(wanted()),
            None => Value::from(as_integer(value)?),
        },
        'o' | 'x' | 'X' if float_of(value).is_some() => return Err(wanted()),
        'o' | 'x' | 'X' => Value::from(as_integer(value)?),
        _ => Value::from(as_float(value)?),
    };
    let letter = if letter == 'u' { 'd' } else { letter };
    let width = if width > 0 { width.to_string() } else { String::new() };
    let precision = precision.map(|precision| format!(".{precision}")).unwrap_or_default();
    format(FormatStyle::Printf, &format!("%{flags}{width}{precision}{letter}"), &[argument])
}
