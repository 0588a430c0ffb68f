//! Fields that choose single tokens: a form of the answer, biases, log probabilities.

use serde_json::{Map, Value, json};

use crate::grammar::Format;
use crate::server::app::App;
use crate::server::chat::TokenChoice;
use crate::server::error::ApiError;
use crate::server::fields::Fields;

/// Most tokens whose log probabilities are listed at each place.
const MOST_LOGPROBS: u64 = 20;

/// Reads `response_format`, or llama-server's `json_schema` and `grammar`.
///
/// Errors: several of them, or one of a wrong form.
pub fn format(fields: &Fields) -> Result<Option<Format>, ApiError> {
    let by_type = match fields.object("response_format")? {
        Some(format) => typed_format("response_format", &format)?,
        None => None,
    };
    let asks = |name: &str| fields.get(name).filter(|value| **value != json!(false));
    let by_schema = asks("json_schema").cloned().map(Format::JsonSchema);
    let by_grammar = match asks("grammar").and(fields.text("grammar")?) {
        Some(text) if !text.is_empty() => Some(Format::grammar(text.to_owned())),
        _ => None,
    };
    let mut formats = by_type.into_iter().chain(by_schema).chain(by_grammar);
    match (formats.next(), formats.next()) {
        (format, None) => Ok(format),
        _ => {
            let message = "only one of response_format, json_schema and grammar is possible";
            Err(ApiError::bad_field("response_format", message))
        }
    }
}

/// Reads an object with `type` and, for `json_schema`, the schema: within `json_schema`, or beside
/// the type.
///
/// Errors: an unknown type, no schema.
pub fn typed_format(field: &str, format: &Fields) -> Result<Option<Format>, ApiError> {
    let inner = format.object("json_schema")?;
    let schema = inner.as_ref().unwrap_or(format).get("schema").cloned();
    match format.text("type")? {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(schema.map_or(Format::JsonObject, Format::JsonSchema))),
        Some("json_schema") => {
            let missing = || {
                ApiError::bad_field(
                    field,
                    format!("{field} has the type json_schema, but no schema"),
                )
            };
            Ok(Some(Format::JsonSchema(schema.ok_or_else(missing)?)))
        }
        Some(kind) => {
            let message =
                format!("{field}: the type {kind:?} is none of text, json_object, json_schema");
            Err(ApiError::bad_field(field, message))
        }
    }
}

/// Reads `logit_bias`: token ids as the keys of an object.
pub fn logit_bias(fields: &Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong = || {
        let message = "logit_bias must map token ids to numbers between -100 and 100";
        ApiError::bad_field("logit_bias", message)
    };
    let Some(biases) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let bias = |(id, bias): (String, Value)| {
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((id.parse().ok()?, bias as f32))
    };
    biases.into_map().into_iter().map(|pair| bias(pair).ok_or_else(wrong)).collect()
}

/// Reads `logprobs` and `top_logprobs` of a chat.
pub fn chat_logprobs(fields: &Fields) -> Result<Option<usize>, ApiError> {
    let most = fields.whole("top_logprobs", 0..=MOST_LOGPROBS)?;
    match (fields.flag("logprobs")?.unwrap_or(false), most) {
        (true, most) => Ok(Some(most.unwrap_or(0) as usize)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            Err(ApiError::bad_field("top_logprobs", "top_logprobs needs logprobs: true"))
        }
    }
}

/// Reads `logprobs` of a completion, which is a number.
pub fn completion_logprobs(fields: &Fields) -> Result<Option<usize>, ApiError> {
    if fields.get("logprobs") == Some(&json!(false)) {
        return Ok(None);
    }
    Ok(fields.whole("logprobs", 0..=MOST_LOGPROBS)?.map(|most| most as usize))
}

/// An entry of a chat's `logprobs.content`.
pub fn chat_entry(app: &App, token: &TokenChoice) -> Value {
    let entry = |id: u32, logprob: f32| {
        let bytes = app.processor.tokenizer().token_bytes(id).unwrap_or_default();
        json!({"token": String::from_utf8_lossy(&bytes), "logprob": logprob, "bytes": bytes})
    };
    let mut whole = entry(token.id, token.logprobs.logprob);
    let likeliest = token.logprobs.likeliest.iter();
    whole["top_logprobs"] = likeliest.map(|&(id, logprob)| entry(id, logprob)).collect();
    whole
}

/// A completion's `logprobs`. Offsets are in characters, from the answer's beginning.
pub fn completion_logprobs_json(app: &App, tokens: &[TokenChoice]) -> Value {
    let text = |id| {
        let bytes = app.processor.tokenizer().token_bytes(id).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let likeliest = |token: &TokenChoice| {
        let pairs = token.logprobs.likeliest.iter();
        pairs.map(|&(id, logprob)| (text(id), json!(logprob))).collect::<Map<_, _>>()
    };
    let mut offset = 0;
    let offsets = tokens.iter().map(|token| {
        offset += text(token.id).chars().count();
        offset - text(token.id).chars().count()
    });
    json!({
        "text_offset": offsets.collect::<Vec<_>>(),
        "tokens": tokens.iter().map(|token| text(token.id)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprobs.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(likeliest).collect::<Vec<_>>(),
    })
}
