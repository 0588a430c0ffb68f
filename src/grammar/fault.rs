//! Errors of llguidance.

use crate::error::Error;

/// The reason in one line.
pub(super) fn fault(error: &dyn std::fmt::Display) -> Error {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Error::Input(format!("the grammar cannot be used: {}", lines.join(" ")))
}
