//! Endpoints about the server, its model and its tokenizer.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::app::App;
use super::error::ApiError;
use super::fields::Fields;
use super::{chat, openai};
use crate::api::ChatOptions;

/// `/health`
pub async fn health(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    match app.engine.unavailable() {
        None => Ok(axum::Json(json!({"status": "ok"})).into_response()),
        Some(reason) => Err(reason),
    }
}

/// `/`, by which some clients see that a server is there.
pub async fn root() -> &'static str {
    "gemma4-wgpu is running"
}

/// `/openapi.json`: the description of all endpoints.
pub async fn openapi() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, include_str!("openapi.json")).into_response()
}

/// `/v1/models`, in the form of OpenAI's API, and with the fields of Anthropic's.
pub async fn models(State(app): State<Arc<App>>) -> axum::Json<Value> {
    let name = &app.options.model;
    axum::Json(json!({
        "object": "list",
        "data": [model_of(&app)],
        "has_more": false,
        "first_id": name,
        "last_id": name,
    }))
}

/// `/v1/models/{name}`
pub async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<axum::Json<Value>, ApiError> {
    app.find_model(&name)?;
    Ok(axum::Json(model_of(&app)))
}

/// The model, with the fields by which clients configure themselves.
fn model_of(app: &App) -> Value {
    let created_at = jiff::Timestamp::from_second(app.created.cast_signed()).unwrap_or_default();
    json!({
        "id": app.options.model,
        "type": "model",
        "display_name": app.options.model,
        "created_at": created_at.to_string(),
        "capabilities": app.capabilities(),
        "context_length": app.info.context_length,
        "context_window": app.info.context_length,
        "max_model_len": app.info.context_length,
        "aliases": app.options.aliases,
        "object": "model",
        "created": app.created,
        "owned_by": "gemma4-wgpu",
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "meta": {
            "n_ctx": app.info.context_length,
            "n_ctx_train": app.config.max_position_embeddings,
            "n_vocab": app.config.vocab_size,
            "n_embd": app.config.hidden_size,
            "size": app.info.weight_bytes,
        },
    })
}

/// `/props`
pub async fn props(State(app): State<Arc<App>>) -> Result<axum::Json<Value>, ApiError> {
    let sampling = ChatOptions::default().sampling(app.processor.sampling())?;
    let template = app.processor.template().map(|template| template.source().to_owned()).ok();
    let (capabilities, tokenizer) = (app.capabilities(), app.processor.tokenizer());
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
    Ok(axum::Json(json!({
        "default_generation_settings": {
            "n_ctx": app.info.context_length,
            "params": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repetition_penalty,
            },
        },
        "total_slots": app.info.max_sequences,
        "model_alias": app.options.model,
        "model_path": app.options.model,
        "chat_template_caps": {
            "supports_tools": capabilities.contains(&"tools"),
            "supports_tool_calls": capabilities.contains(&"tools"),
            "supports_system_role": true,
            "supports_parallel_tool_calls": capabilities.contains(&"tools"),
        },
        "bos_token": token(tokenizer.bos_id()),
        "chat_template": template,
        "modalities": {"vision": false, "audio": false},
        "build_info": concat!("gemma4-wgpu ", env!("CARGO_PKG_VERSION")),
        "backend": app.info.backend,
        "device": app.info.device,
    })))
}

/// `/slots`: the sequences that can run at once.
pub async fn slots(State(app): State<Arc<App>>) -> axum::Json<Value> {
    let (running, n_ctx) = (app.engine.load().running, app.info.context_length);
    let slot = |id| json!({"id": id, "n_ctx": n_ctx, "is_processing": id < running});
    axum::Json((0..app.info.max_sequences).map(slot).collect())
}

/// `/apply-template`: the prompt of a chat request as text.
pub async fn apply_template(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<axum::Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    app.check_model(&fields)?;
    let mut request = openai::request(&mut fields)?;
    let prompt = chat::prompt_text(&app, &mut request).await?;
    Ok(axum::Json(json!({"prompt": prompt})))
}

/// `/metrics`
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = app.metrics.text(app.engine.load());
    let text = text.map_err(|_| ApiError::internal("the figures could not be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// `/tokenize`: `content` to `tokens`.
pub async fn tokenize(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<axum::Json<Value>, ApiError> {
    let fields = Fields::parse(&body)?;
    let missing = || ApiError::bad_field("content", "content is missing");
    let text = fields.text("content")?.ok_or_else(missing)?.to_owned();
    let add_special = fields.flag("add_special")?.unwrap_or(false);
    let parse_special = fields.flag("parse_special")?.unwrap_or(true);
    let made = tokio::task::spawn_blocking(move || {
        let tokenizer = app.processor.tokenizer();
        match add_special {
            true => tokenizer.encode_prompt(&text, parse_special),
            false => tokenizer.encode(&text, parse_special),
        }
    });
    let tokens = made.await.map_err(|_| ApiError::internal("the text could not be read"))??;
    Ok(axum::Json(json!({"tokens": tokens})))
}

/// `/detokenize`: `tokens` to `content`.
pub async fn detokenize(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<axum::Json<Value>, ApiError> {
    let fields = Fields::parse(&body)?;
    let wrong = |message: &str| ApiError::bad_field("tokens", message);
    let Some(Value::Array(items)) = fields.get("tokens") else {
        return Err(wrong("tokens must be a list of token ids"));
    };
    let id = |item: &Value| item.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = items.iter().map(id).collect();
    let ids = ids.ok_or_else(|| wrong("tokens must be a list of token ids"))?;
    if let Some(id) = ids.iter().find(|&&id| app.processor.tokenizer().token(id).is_none()) {
        return Err(wrong(&format!("token {id} is not in the vocabulary")));
    }
    Ok(axum::Json(json!({"content": app.processor.tokenizer().decode(&ids)})))
}
