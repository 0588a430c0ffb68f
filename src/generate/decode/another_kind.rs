//! A backend whose results are not of the requested kind.

use crate::{backend::StepResult, error::Error};

pub(super) fn another_kind(result: &StepResult) -> Error {
    let kind = match result {
        StepResult::None => "nothing",
        StepResult::Logits(_) => "logits",
        StepResult::Token(_) => "a token",
    };
    Error::Device(format!("the backend answered a step with {kind}, not with what was asked for"))
}
