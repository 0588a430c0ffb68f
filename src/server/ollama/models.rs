//! Endpoints about the model.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::model::tensors::tensor_specs;
use crate::server::app::App;
use crate::server::error::ApiError;
use crate::server::fields::Fields;

/// The version of Ollama whose API this is. Clients refuse older ones.
const VERSION: &str = "0.12.6";

/// `/api/version`
pub async fn version() -> axum::Json<Value> {
    axum::Json(json!({"version": VERSION}))
}

/// `/api/tags`
pub async fn tags(State(app): State<Arc<App>>) -> axum::Json<Value> {
    axum::Json(json!({"models": [entry(&app)]}))
}

/// `/api/ps`
pub async fn ps(State(app): State<Arc<App>>) -> axum::Json<Value> {
    let mut entry = entry(&app);
    // The model stays loaded.
    entry["expires_at"] = json!("9999-12-31T23:59:59Z");
    entry["size_vram"] = json!(app.info.weight_bytes);
    entry["context_length"] = json!(app.info.context_length);
    axum::Json(json!({"models": [entry]}))
}

/// `/api/show`
pub async fn show(State(app): State<Arc<App>>, body: Bytes) -> Result<axum::Json<Value>, ApiError> {
    let fields = Fields::parse(&body)?;
    let name = match fields.text("model")? {
        Some(name) => Some(name),
        None => fields.text("name")?,
    };
    app.find_model(name.ok_or_else(|| ApiError::bad_field("model", "model is missing"))?)?;
    let template = app.processor.template().map(|template| template.source()).unwrap_or_default();
    let config = &app.config;
    Ok(axum::Json(json!({
        "modelfile": format!("FROM {}\n", app.options.model),
        "parameters": "",
        "template": template,
        "details": details(&app),
        "model_info": {
            "general.architecture": FAMILY,
            "general.basename": app.options.model,
            "gemma4.context_length": app.info.context_length,
            "gemma4.embedding_length": config.hidden_size,
            "gemma4.block_count": config.layers.len(),
            "gemma4.vocab_size": config.vocab_size,
        },
        "capabilities": app.capabilities(),
        "modified_at": modified(&app),
    })))
}

const FAMILY: &str = "gemma4";

fn entry(app: &App) -> Value {
    let digest: [u8; 32] = Sha256::digest(&app.options.model).into();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "name": app.options.model,
        "model": app.options.model,
        "modified_at": modified(app),
        "size": app.info.weight_bytes,
        "digest": digest,
        "details": details(app),
    })
}

fn details(app: &App) -> Value {
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": FAMILY,
        "families": [FAMILY],
        "parameter_size": parameter_size(app),
        // Each tensor may have its own format.
        "quantization_level": "unknown",
    })
}

/// Parameters in billions.
fn parameter_size(app: &App) -> String {
    let specs = tensor_specs(&app.config);
    let count: usize = specs.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    format!("{:.1}B", count as f64 / 1e9)
}

/// The time at which the server began.
fn modified(app: &App) -> String {
    let seconds = i64::try_from(app.created).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}
