//! Ollama's API.

mod answer;
mod messages;
mod models;
mod options;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use self::answer::{Form, Line, Lines};
use super::app::App;
use super::chat::{self, ChatRequest, Generation, Pieces};
use super::error::ApiError;
use super::fields::Fields;
use super::openai;
use super::sse::unbuffered;
use crate::text::{Message, Prompt, Role};

pub use models::{ps, show, tags, version};

/// `/api/chat`
pub async fn chat(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    check_model(&app, &fields)?;
    let is_stream = fields.flag("stream")?.unwrap_or(true);
    let lines = Lines::new(&app, Form::Chat);
    let messages = messages::parse(fields.take("messages"))?;
    if messages.is_empty() {
        return Ok(axum::Json(lines.loaded()).into_response());
    }
    let tools = openai::tools(&mut fields)?;
    let generation = options::generation(&fields)?;
    let mut request = ChatRequest { messages, tools, generation, ..ChatRequest::default() };
    let prompt = chat::prompt(&app, &mut request).await?;
    respond(&app, lines, prompt, &request.generation, is_stream).await
}

/// `/api/generate`
pub async fn generate(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body)?;
    check_model(&app, &fields)?;
    let is_stream = fields.flag("stream")?.unwrap_or(true);
    let lines = Lines::new(&app, Form::Generate);
    for (name, what) in [("suffix", "a text after the answer"), ("template", "another template")] {
        if fields.text(name)?.is_some_and(|text| !text.is_empty()) {
            return Err(ApiError::unsupported(name, what));
        }
    }
    messages::refuse_images(fields.get("images"))
        .map_err(|reason| ApiError::bad_field("images", reason))?;
    let text = fields.text("prompt")?.unwrap_or_default().to_owned();
    if text.is_empty() {
        return Ok(axum::Json(lines.loaded()).into_response());
    }
    let mut generation = options::generation(&fields)?;
    let prompt = if fields.flag("raw")?.unwrap_or(false) {
        raw(&app, text).await?
    } else {
        let system = fields.text("system")?.unwrap_or_default();
        let system = (!system.is_empty()).then(|| Message::new(Role::System, system));
        let messages = system.into_iter().chain([Message::user(text)]).collect();
        let chat_generation = generation.clone();
        let mut request =
            ChatRequest { messages, generation: chat_generation, ..ChatRequest::default() };
        let prompt = chat::prompt(&app, &mut request).await?;
        generation = request.generation;
        prompt
    };
    respond(&app, lines, prompt, &generation, is_stream).await
}

/// A text to continue as it is.
async fn raw(app: &Arc<App>, text: String) -> Result<Prompt, ApiError> {
    let app = Arc::clone(app);
    let made = tokio::task::spawn_blocking(move || app.processor.raw(&text)).await;
    Ok(made.map_err(|_| ApiError::internal("the prompt could not be made"))??)
}

/// Errors: the request names no model, or one that is not loaded.
fn check_model(app: &App, fields: &Fields) -> Result<(), ApiError> {
    match fields.text("model")? {
        None => Err(ApiError::bad_field("model", "model is missing")),
        Some(_) => app.check_model(fields),
    }
}

async fn respond(
    app: &Arc<App>,
    mut lines: Lines,
    prompt: Prompt,
    generation: &Generation,
    is_stream: bool,
) -> Result<Response, ApiError> {
    let mut pieces = chat::start(app, vec![prompt], generation).await?;
    if is_stream {
        return Ok(ndjson(stream(lines, pieces)));
    }
    let mut whole = Value::Null;
    while let Some((_, piece)) = pieces.next().await {
        match lines.take(piece) {
            Line::Nothing => {}
            Line::Part(part) => lines.join(&mut whole, part),
            Line::Last(last) => lines.join(&mut whole, last),
            Line::Failed(error) => return Err(error),
        }
    }
    Ok(axum::Json(whole).into_response())
}

fn stream(mut lines: Lines, mut pieces: Pieces) -> impl Stream<Item = Value> + Send {
    async_stream::stream! {
        while let Some((_, piece)) = pieces.next().await {
            match lines.take(piece) {
                Line::Nothing => {}
                Line::Part(line) | Line::Last(line) => yield line,
                Line::Failed(error) => {
                    yield error.body(super::error::Dialect::Ollama);
                    return;
                }
            }
        }
    }
}

/// A response of these objects, one a line.
fn ndjson(lines: impl Stream<Item = Value> + Send + 'static) -> Response {
    let lines = lines.map(|line| Ok::<_, std::convert::Infallible>(format!("{line}\n")));
    let mut response = Body::from_stream(lines).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    unbuffered(response)
}
