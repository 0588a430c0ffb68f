//! Literals of llguidance's dialect of Lark.

/// A text as a string literal.
pub(super) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A token by its id.
pub(super) fn token(id: u32) -> String {
    format!("<[{id}]>")
}
