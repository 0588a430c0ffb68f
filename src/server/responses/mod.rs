//! OpenAI's Responses API. The server stores nothing: each request brings its whole input.

mod input;
mod items;
mod request;
mod stream;
mod tools;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Value, json};

use self::request::{Request, ResponseObject};
use super::app::App;
use super::chat::{self, Piece, Usage};
use super::error::ApiError;
use super::fields::Fields;
use super::sse;

/// `/v1/responses`
pub async fn responses(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let is_stream = fields.flag("stream")?.unwrap_or(false);
    let object = ResponseObject::new(&app, &fields);
    let Request { mut chat, tools, with_encrypted } = request::parse(&mut fields)?;
    let prompt = chat::prompt(&app, &mut chat).await?;
    let mut pieces = chat::start(&app, vec![prompt], &chat.generation).await?;
    let mut builder = stream::Builder::new(object, tools, with_encrypted);
    if is_stream {
        return Ok(sse::response(stream::events(builder, pieces)));
    }
    while let Some((_, piece)) = pieces.next().await {
        match piece {
            Piece::Event(event) => drop(builder.take(event)),
            Piece::Token(_) => {}
            Piece::End(end) => drop(builder.end(&end)),
            Piece::Failed(error) => return Err(error),
        }
    }
    Ok(axum::Json(builder.response()).into_response())
}

/// `/v1/responses/input_tokens`
pub async fn input_tokens(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<axum::Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let mut request = request::parse(&mut fields)?;
    let prompt = chat::prompt(&app, &mut request.chat).await?;
    let tokens = prompt.tokens.len();
    Ok(axum::Json(json!({"object": "response.input_tokens", "input_tokens": tokens})))
}

fn usage_json(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
