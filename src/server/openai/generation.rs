//! The fields of a request that say how its answers are made.

use std::num::NonZeroUsize;

use super::form;
use crate::api::ChatOptions;
use crate::server::chat::Generation;
use crate::server::error::ApiError;
use crate::server::fields::Fields;

/// Most answers to one prompt.
const MOST_CHOICES: u64 = 64;
/// Most texts that end an answer, and the most bytes of each.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;

/// How answers are sent.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub stream: bool,
    /// Whether a stream ends with the counts of tokens.
    pub include_usage: bool,
}

impl Delivery {
    pub fn parse(fields: &Fields) -> Result<Delivery, ApiError> {
        let include_usage = match fields.object("stream_options")? {
            Some(options) => options.flag("include_usage")?.unwrap_or(false),
            None => false,
        };
        Ok(Delivery { stream: fields.flag("stream")?.unwrap_or(false), include_usage })
    }
}

/// Reads the common fields of chats and completions.
///
/// Errors: a value of a wrong type or range.
pub fn parse(fields: &Fields) -> Result<Generation, ApiError> {
    let most = match fields.whole("max_completion_tokens", 1..=u64::MAX)? {
        Some(most) => Some(most),
        None => fields.whole("max_tokens", 1..=u64::MAX)?,
    };
    let options = ChatOptions { max_new_tokens: tokens(most), ..sampling_fields(fields)? };
    let choices = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1) as u32;
    let stop = stops(fields, "stop")?;
    let logit_bias = form::logit_bias(fields)?;
    let generation = Generation { options, stop, choices, logit_bias, ..Generation::default() };
    Ok(generation.with_format(form::format(fields)?))
}

/// Reads the sampling fields that all dialects have under the same names.
pub fn sampling_fields(fields: &Fields) -> Result<ChatOptions, ApiError> {
    let float = |name, range| {
        fields.number(name, range).map(|value: Option<f64>| value.map(|value| value as f32))
    };
    let repetition_penalty = match float("repetition_penalty", 0.01..=100.0)? {
        Some(penalty) => Some(penalty),
        // llama.cpp's and Ollama's name.
        None => float("repeat_penalty", 0.01..=100.0)?,
    };
    Ok(ChatOptions {
        temperature: float("temperature", 0.0..=100.0)?,
        top_k: fields.whole("top_k", 0..=u64::from(u32::MAX))?.map(|top_k| top_k as usize),
        top_p: float("top_p", 0.0..=1.0)?,
        min_p: float("min_p", 0.0..=1.0)?,
        repetition_penalty,
        presence_penalty: float("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: float("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        seed: seed(fields)?,
        ..ChatOptions::default()
    })
}

/// A limit of tokens. 0 is none.
pub fn tokens(most: Option<u64>) -> Option<NonZeroUsize> {
    most.and_then(|most| NonZeroUsize::new(usize::try_from(most).unwrap_or(usize::MAX)))
}

/// Whether a model should think with this effort.
pub fn thinks(field: &str, effort: &str) -> Result<bool, ApiError> {
    match effort {
        "none" | "minimal" => Ok(false),
        "low" | "medium" | "high" | "xhigh" | "max" => Ok(true),
        effort => {
            let message =
                format!("{field}: {effort:?} is none of none, minimal, low, medium, high");
            Err(ApiError::bad_field(field, message))
        }
    }
}

/// Negative seeds are seeds too, except −1, which means another one each time.
fn seed(fields: &Fields) -> Result<Option<u64>, ApiError> {
    match fields.get("seed") {
        None => Ok(None),
        Some(value) => match (value.as_u64(), value.as_i64()) {
            (Some(seed), _) => Ok(Some(seed)),
            (None, Some(-1)) => Ok(None),
            (None, Some(seed)) => Ok(Some(seed.cast_unsigned())),
            (None, None) => Err(ApiError::bad_field("seed", "seed must be a whole number")),
        },
    }
}

/// Texts that end an answer.
pub fn stops(fields: &Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let stops = fields.texts(name)?;
    if stops.len() > MOST_STOPS {
        let message =
            format!("{name} has {} texts, but at most {MOST_STOPS} are possible", stops.len());
        return Err(ApiError::bad_field(name, message));
    }
    if stops.iter().any(|stop| stop.len() > LONGEST_STOP) {
        let message = format!("a text of {name} has more than {LONGEST_STOP} bytes");
        return Err(ApiError::bad_field(name, message));
    }
    Ok(stops)
}
