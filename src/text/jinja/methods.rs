//! Methods of Python's values.

use std::{fmt, sync::Arc};

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use crate::text::jinja::arguments::arguments;
use crate::text::jinja::repr::to_repr;
use crate::text::jinja::strings::{self, kind_name};

/// Methods that change a list or a mapping. The sandbox of transformers refuses them.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
];

/// Called for methods that the value itself lacks.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    given: &[Value],
) -> Result<Value, Error> {
    let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    let own = match value.as_str() {
        Some(text) => strings::call(text, method, given)?,
        None if is_list => list_method(value, method, given)?,
        None if value.kind() == ValueKind::Map => map_method(value, method, given)?,
        None => None,
    };
    if let Some(result) = own {
        return Ok(result);
    }
    if CHANGING.contains(&method) && (is_list || value.kind() == ValueKind::Map) {
        let reason = format!(
            "{}.{method} would change its value, which templates may not",
            kind_name(value)
        );
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    pycompat::unknown_method_callback(state, value, method, given)
}

/// The keys, values or items of a mapping, iterated like a list and printed like Python's.
#[derive(Debug)]
struct View {
    of: &'static str,
    entries: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.clone())
    }

    fn render(self: &Arc<Self>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = to_repr(&Value::from(self.entries.clone())).map_err(|_| fmt::Error)?;
        write!(out, "dict_{}({entries})", self.of)
    }
}

fn map_method(map: &Value, method: &str, given: &[Value]) -> Result<Option<Value>, Error> {
    let entry: fn((Value, Value)) -> Value = match method {
        "keys" => |(key, _)| key,
        "values" => |(_, value)| value,
        "items" => |(key, value)| Value::from(Tuple::from([key, value])),
        "copy" => {
            let [] = arguments(method, [], given)?;
            return Ok(Some(map.clone()));
        }
        _ => return Ok(None),
    };
    let [] = arguments(method, [], given)?;
    let of = match method {
        "keys" => "keys",
        "values" => "values",
        _ => "items",
    };
    let pairs = map.try_iter()?.map(|key| map.get_item(&key).map(|value| entry((key, value))));
    Ok(Some(Value::from_object(View { of, entries: pairs.collect::<Result<_, _>>()? })))
}

fn list_method(list: &Value, method: &str, given: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (wanted, start, end): (Value, Option<i64>, Option<i64>) = from_args(given)?;
            let items: Vec<Value> = list.try_iter()?.collect();
            let bound = |bound: i64| match bound {
                ..0 => items.len().saturating_sub(bound.unsigned_abs() as usize),
                _ => bound as usize,
            };
            let (start, end) = (bound(start.unwrap_or(0)), end.map_or(items.len(), bound));
            let mut range = items.iter().enumerate().take(end).skip(start);
            match range.find(|(_, item)| **item == wanted) {
                Some((index, _)) => Ok(Some(Value::from(index))),
                None => Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "index: the value is not in the list",
                )),
            }
        }
        "copy" => {
            let [] = arguments(method, [], given)?;
            Ok(Some(list.clone()))
        }
        "count" => {
            let (wanted,): (Value,) = from_args(given)?;
            Ok(Some(Value::from(list.try_iter()?.filter(|item| *item == wanted).count())))
        }
        _ => Ok(None),
    }
}
