//! How answers are generated.

use serde_json::Value;

use crate::api::ChatOptions;
use crate::server::chat::Generation;
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::server::openai;

/// Reads `options`, `think` and `format`.
///
/// Errors: a value of a wrong type or range, a field that this server cannot obey.
pub fn generation(fields: &Fields) -> Result<Generation, ApiError> {
    match fields.get("format") {
        None => {}
        Some(Value::String(format)) if format.is_empty() => {}
        Some(_) => return Err(ApiError::unsupported("format", "an answer by a schema")),
    }
    let thinking = match fields.get("think") {
        None => false,
        Some(Value::Bool(think)) => *think,
        Some(Value::String(effort)) => openai::thinks("think", effort)?,
        Some(_) => return Err(ApiError::bad_field("think", "think must be true or false")),
    };
    let none = Fields::default();
    let options = fields.object("options")?.unwrap_or(none);
    let penalty = options.number("repeat_penalty", 0.01..=100.0)?;
    // Negative numbers mean no limit.
    let most = match options.get("num_predict").and_then(Value::as_i64) {
        Some(most) if most < 0 => None,
        _ => options.whole("num_predict", 0..=u64::MAX)?,
    };
    let options_of_all = openai::sampling_fields(&options)?;
    let chat = ChatOptions {
        max_new_tokens: openai::tokens(most),
        repetition_penalty: penalty.map(|penalty| penalty as f32),
        thinking,
        ..options_of_all
    };
    let stop = openai::stops(&options, "stop")?;
    Ok(Generation { options: chat, stop, ..Generation::default() })
}
