//! How answers are generated.

use serde_json::Value;

use crate::api::ChatOptions;
use crate::grammar::Format;
use crate::server::chat::Generation;
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::server::openai;

/// Reads `options`, `think` and `format`.
///
/// Errors: a value of a wrong type or range, a field that this server cannot obey.
pub fn generation(fields: &Fields) -> Result<Generation, ApiError> {
    let format = match fields.get("format") {
        None => None,
        Some(Value::String(format)) if format.is_empty() => None,
        Some(Value::String(format)) if format == "json" => Some(Format::JsonObject),
        Some(schema @ Value::Object(_)) => Some(Format::JsonSchema(schema.clone())),
        Some(_) => {
            return Err(ApiError::bad_field("format", "format must be \"json\" or a JSON schema"));
        }
    };
    let thinking = match fields.get("think") {
        None => false,
        Some(Value::Bool(think)) => *think,
        Some(Value::String(effort)) => openai::thinks("think", effort)?,
        Some(_) => return Err(ApiError::bad_field("think", "think must be true or false")),
    };
    let none = Fields::default();
    let options = fields.object("options")?.unwrap_or(none);
    // Negative numbers mean no limit.
    let most = match options.get("num_predict").and_then(Value::as_i64) {
        Some(most) if most < 0 => None,
        _ => options.whole("num_predict", 0..=u64::MAX)?,
    };
    let options_of_all = openai::sampling_fields(&options)?;
    let chat = ChatOptions { max_new_tokens: openai::tokens(most), thinking, ..options_of_all };
    let stop = openai::stops(&options, "stop")?;
    let generation = Generation { options: chat, stop, ..Generation::default() };
    Ok(generation.with_format(format))
}
