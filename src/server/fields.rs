//! Fields of a request. An unknown field is ignored; a known one of a wrong type is named.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;

/// The fields of a request's JSON object. A field that is null counts as absent.
#[derive(Debug, Clone, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Errors: text that is no JSON, or JSON that is no object.
    pub fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(ApiError::bad_request("the body is no JSON object")),
            Err(error) => Err(ApiError::bad_request(format!("the body is no JSON: {error}"))),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// The value of a field, taken out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields of an object within.
    pub fn object(&self, name: &str) -> Result<Option<Fields>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Fields(fields.clone()))),
            Some(_) => Err(ApiError::bad_field(name, format!("{name} must be an object"))),
        }
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::bad_field(name, format!("{name} must be a string"))),
        }
    }

    /// A number of this range.
    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let (from, to) = (*range.start(), *range.end());
        let kind = match to.is_finite() {
            true => format!("a number between {from} and {to}"),
            false => format!("a number of at least {from}"),
        };
        let number = |value: &Value| value.as_f64().filter(|value| range.contains(value));
        self.typed(name, &kind, number)
    }

    /// A whole number of this range. 3.0 is one.
    pub fn whole(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let (from, to) = (*range.start(), *range.end());
        let kind = match to {
            u64::MAX => format!("a whole number of at least {from}"),
            _ => format!("a whole number between {from} and {to}"),
        };
        let exact = |value: &Value| match value.as_f64() {
            Some(float) if value.is_f64() && float.fract() == 0.0 && float >= 0.0 => {
                // A float beyond 2⁵³ may not be the number that was meant.
                (float <= 2f64.powi(53)).then_some(float as u64)
            }
            _ => value.as_u64(),
        };
        self.typed(name, &kind, |value| exact(value).filter(|value| range.contains(value)))
    }

    /// A string, or a list of strings.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let texts = |value: &Value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        Ok(self.typed(name, "a string or a list of strings", texts)?.unwrap_or_default())
    }

    fn typed<T>(
        &self,
        name: &str,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let wrong = || ApiError::bad_field(name, format!("{name} must be {kind}"));
        self.get(name).map(|value| read(value).ok_or_else(wrong)).transpose()
    }
}
