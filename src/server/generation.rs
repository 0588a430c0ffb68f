//! The fields of a request that say how its answers are made.

use std::num::NonZeroUsize;

use super::error::ApiError;
use super::fields::Fields;
use crate::api::ChatOptions;

/// Most answers to one prompt.
const MOST_CHOICES: u64 = 64;
/// Most texts that end an answer, and the most bytes of each.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;

/// How the answers to a request are made and sent.
#[derive(Debug, Clone)]
pub struct Generation {
    pub options: ChatOptions,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Answers to each prompt.
    pub choices: u32,
    pub stream: bool,
    /// Whether a stream ends with the counts of tokens.
    pub include_usage: bool,
}

impl Generation {
    /// Reads the common fields of chats and completions.
    ///
    /// Errors: a value of a wrong type or range, a field that this server cannot obey.
    pub fn parse(fields: &Fields) -> Result<Generation, ApiError> {
        refuse_unsupported(fields)?;
        let float =
            |name, range| fields.number(name, range).map(|value| value.map(|value| value as f32));
        let most = match fields.whole("max_completion_tokens", 1..=u64::MAX)? {
            Some(most) => Some(most),
            None => fields.whole("max_tokens", 1..=u64::MAX)?,
        };
        let most = most.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let options = ChatOptions {
            max_new_tokens: most.and_then(NonZeroUsize::new),
            temperature: float("temperature", 0.0..=100.0)?,
            top_k: fields.whole("top_k", 0..=u64::from(u32::MAX))?.map(|top_k| top_k as usize),
            top_p: float("top_p", 0.0..=1.0)?,
            min_p: float("min_p", 0.0..=1.0)?,
            repetition_penalty: float("repetition_penalty", 0.01..=100.0)?,
            seed: seed(fields)?,
            thinking: false,
            parse_special: false,
            ..ChatOptions::default()
        };
        let stream = fields.flag("stream")?.unwrap_or(false);
        let include_usage = match fields.object("stream_options")? {
            Some(options) => options.flag("include_usage")?.unwrap_or(false),
            None => false,
        };
        let choices = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1) as u32;
        Ok(Generation { options, stop: stops(fields)?, choices, stream, include_usage })
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

fn stops(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let stops = fields.texts("stop")?;
    if stops.len() > MOST_STOPS {
        let message =
            format!("stop has {} texts, but at most {MOST_STOPS} are possible", stops.len());
        return Err(ApiError::bad_field("stop", message));
    }
    if stops.iter().any(|stop| stop.len() > LONGEST_STOP) {
        let message = format!("a text of stop has more than {LONGEST_STOP} bytes");
        return Err(ApiError::bad_field("stop", message));
    }
    Ok(stops)
}

/// Refuses fields that would change the answer. Their neutral values are accepted.
fn refuse_unsupported(fields: &Fields) -> Result<(), ApiError> {
    for name in ["frequency_penalty", "presence_penalty"] {
        if fields.number(name, -2.0..=2.0)?.is_some_and(|penalty| penalty != 0.0) {
            return Err(ApiError::unsupported(name, "a penalty by count"));
        }
    }
    if fields.object("logit_bias")?.is_some_and(|bias| !bias.is_empty()) {
        return Err(ApiError::unsupported("logit_bias", "a bias of logits"));
    }
    let asks =
        |name: &str| fields.get(name).is_some_and(|value| *value != serde_json::Value::Bool(false));
    for name in ["logprobs", "top_logprobs"] {
        if asks(name) {
            return Err(ApiError::unsupported(name, "a list of log probabilities"));
        }
    }
    for name in ["grammar", "json_schema"] {
        if asks(name) {
            return Err(ApiError::unsupported(name, "an answer by a grammar"));
        }
    }
    let format = fields.object("response_format")?;
    match format.as_ref().map(|format| format.text("type")).transpose()?.flatten() {
        None | Some("text") => Ok(()),
        Some(_) => Err(ApiError::unsupported("response_format", "an answer by a schema")),
    }
}
