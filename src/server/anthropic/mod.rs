//! Anthropic's Messages API.

mod answer;
mod blocks;
mod request;
mod stream;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::app::{App, new_id};
use super::chat::{self, EndReason, Usage};
use super::error::ApiError;
use super::fields::Fields;
use super::sse;

/// `/v1/messages`
pub async fn messages(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let is_stream = fields.flag("stream")?.unwrap_or(false);
    let mut request = request::parse(&mut fields, app.options.keep_billing_line)?;
    let prompt = chat::prompt(&app, &mut request).await?;
    let prompt_tokens = prompt.tokens.len();
    let pieces = chat::start(&app, vec![prompt], &request.generation).await?;
    let (id, model) = (new_id("msg_"), app.options.model.clone());
    if is_stream {
        return Ok(sse::response(stream::events(id, model, prompt_tokens, pieces)));
    }
    let answer = chat::collect(pieces, 1).await?.pop().unwrap_or_default();
    Ok(axum::Json(answer::json(&id, &model, &answer)).into_response())
}

/// `/v1/messages/count_tokens`
pub async fn count_tokens(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<axum::Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let mut request = request::parse(&mut fields, app.options.keep_billing_line)?;
    let prompt = chat::prompt(&app, &mut request).await?;
    Ok(axum::Json(json!({"input_tokens": prompt.tokens.len()})))
}

/// Counts of tokens. Cached ones are apart.
fn usage_json(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}

/// `stop_reason` and `stop_sequence`.
fn stop_reason(reason: &EndReason) -> (&'static str, Option<&str>) {
    match reason {
        EndReason::Stop => ("end_turn", None),
        EndReason::StopText(text) => ("stop_sequence", Some(text)),
        EndReason::ToolCalls => ("tool_use", None),
        EndReason::Length => ("max_tokens", None),
        EndReason::ContextFull => ("model_context_window_exceeded", None),
    }
}
