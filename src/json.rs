//! Typed access to a JSON object, with errors that name the key.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Parses JSON. Errors give the fault and its place in one line of bounded length.
pub(crate) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| {
        let message: String =
            error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
        format!("bad JSON: {message}")
    })
}

/// A JSON object of a configuration file. Reading treats `null` as absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// Errors if `value` is not an object, which `what` names.
    pub(crate) fn of(value: &'a Value, what: &str) -> Result<Self> {
        value
            .as_object()
            .map(Fields)
            .ok_or_else(|| Error::Config(format!("{what} is not an object")))
    }

    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, even with `null`.
    pub(crate) fn has(self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Keys and values in the file's order.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.0.iter()
    }

    pub(crate) fn size(self, key: &str) -> Result<Option<usize>> {
        let as_size = |value: &Value| value.as_u64().and_then(|value| value.try_into().ok());
        self.typed(key, as_size, "a whole number that is not negative")
    }

    pub(crate) fn number(self, key: &str) -> Result<Option<f64>> {
        self.typed(key, Value::as_f64, "a number")
    }

    pub(crate) fn flag(self, key: &str) -> Result<Option<bool>> {
        self.typed(key, Value::as_bool, "true or false")
    }

    pub(crate) fn text(self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, Value::as_str, "a string")
    }

    pub(crate) fn list(self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        self.typed(key, Value::as_array, "a list")
    }

    pub(crate) fn object(self, key: &str) -> Result<Option<Fields<'a>>> {
        self.typed(key, |value| value.as_object().map(Fields), "an object")
    }

    fn typed<T>(
        self,
        key: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
        wanted: &str,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(value) => Ok(Some(value)),
                None => Err(Error::Config(format!("{key} is not {wanted}"))),
            },
        }
    }
}
