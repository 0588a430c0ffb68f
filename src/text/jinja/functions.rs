//! Functions of Jinja2 and transformers that templates call.

use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, functions};
use minijinja_contrib::globals;

use crate::text::jinja::{arguments::arguments, strftime::strftime_now};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| strftime_now(format));
    environment.add_function("namespace", namespace);
    environment.add_function("cycler", |items: Rest<Value>| globals::cycler(items.0));
    environment.add_function("joiner", globals::joiner);
    environment.add_global("dict", Value::from_object(Dict));
    // Jinja2 has no `debug`, and a template may test for it.
    environment.remove_global("debug");
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Pairs of a mapping or of a list of pairs, then keyword arguments.
fn pairs(first: Option<Value>, keywords: &Kwargs) -> Result<Vec<(Value, Value)>, Error> {
    let mut pairs = Vec::new();
    if let Some(first) = first {
        let is_mapping = first.kind() == ValueKind::Map;
        for item in first.try_iter()? {
            pairs.push(match is_mapping {
                true => (item.clone(), first.get_item(&item)?),
                false => (item.get_item_by_index(0)?, item.get_item_by_index(1)?),
            });
        }
    }
    for name in keywords.args() {
        pairs.push((Value::from(name), keywords.get(name)?));
    }
    Ok(pairs)
}

/// Refuses names that begin with `_`, as in transformers.
fn namespace(first: Option<Value>, keywords: Kwargs) -> Result<Value, Error> {
    let pairs = pairs(first, &keywords)?;
    let is_hidden = |name: &Value| name.as_str().is_some_and(|name| name.starts_with('_'));
    if let Some((name, _)) = pairs.iter().find(|(name, _)| is_hidden(name)) {
        let reason = format!("namespace cannot hold '{name}', which begins with _");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let (defaults,) = from_args(&[Value::from_pairs(pairs)])?;
    functions::namespace(defaults)
}

/// `dict(…)` and `dict.fromkeys(…)`.
#[derive(Debug)]
struct Dict;

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, given: &[Value]) -> Result<Value, Error> {
        let (first, keywords): (Option<Value>, Kwargs) = from_args(given)?;
        Ok(Value::from_pairs(pairs(first, &keywords)?))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        given: &[Value],
    ) -> Result<Value, Error> {
        if method != "fromkeys" {
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        let [keys, value] = arguments(method, ["iterable", "value"], given)?;
        let value = value.unwrap_or_else(|| Value::from(()));
        Ok(Value::from_pairs(keys.unwrap_or_default().try_iter()?.map(|key| (key, value.clone()))))
    }
}
