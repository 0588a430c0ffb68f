//! The paths, and what happens to every request.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::request_id::{MakeRequestId, RequestId};
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};

use super::app::{App, new_id};
use super::error::{ApiError, Dialect};
use super::info;
use super::{anthropic, ollama, openai, responses};

/// All paths of a server.
pub fn router(app: &Arc<App>) -> Router {
    let name = HeaderName::from_static("x-request-id");
    let layers = ServiceBuilder::new()
        .layer(SetRequestIdLayer::new(name.clone(), NewId))
        .layer(PropagateRequestIdLayer::new(name))
        .option_layer(cors(&app.options.cors_origins))
        .layer(middleware::from_fn_with_state(Arc::clone(app), watch))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(app.options.max_body_bytes));
    Router::new()
        .merge(openai_paths())
        .merge(other_dialects())
        .route("/", get(info::root))
        .route("/v1/models", get(info::models))
        .route("/v1/models/{*name}", get(info::model))
        .route("/tokenize", post(info::tokenize))
        .route("/detokenize", post(info::detokenize))
        .route("/apply-template", post(info::apply_template))
        .route("/props", get(info::props))
        .route("/slots", get(info::slots))
        .route("/metrics", get(info::metrics))
        .route("/health", get(info::health))
        .route("/openapi.json", get(info::openapi))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(layers)
        .with_state(Arc::clone(app))
}

fn openai_paths() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/responses/input_tokens", post(responses::input_tokens))
        .route("/v1/embeddings", post(no_embeddings))
}

fn other_dialects() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/api/version", get(ollama::version))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(no_embeddings))
        .route("/api/embeddings", post(no_embeddings))
}

async fn no_embeddings() -> ApiError {
    ApiError::no_embeddings()
}

async fn no_path(uri: Uri) -> ApiError {
    ApiError::no_path(uri.path())
}

async fn no_method(method: Method) -> ApiError {
    ApiError::no_method(method.as_str())
}

/// Lets pages of these origins send requests. Without origins, browsers send none from other pages.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers(AllowHeaders::mirror_request());
    Some(match origins.iter().any(|origin| origin == "*") {
        true => layer.allow_origin(AllowOrigin::any()),
        false => {
            let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            layer.allow_origin(AllowOrigin::list(origins))
        }
    })
}

/// Asks for the key, counts the answer, and gives errors of axum itself the API's form.
async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_open =
        ["/health", "/"].contains(&request.uri().path()) || app.accepts(key(request.headers()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match is_open {
        true => next.run(request).await,
        false => ApiError::unauthorized().into_response(),
    };
    let dialect = Dialect::of(&path);
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = in_dialect(&error, dialect, &response);
    } else if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        response = ApiError::body_too_large(app.options.max_body_bytes).response(dialect);
    } else if response.status().is_client_error() && is_plain_text(&response) {
        response = ApiError::bad_request("the body could not be read").response(dialect);
    }
    app.metrics.count(response.status().as_u16());
    log::debug!("{method} {path} {}", response.status().as_u16());
    response
}

/// An error in a dialect. It keeps the headers of the first response, such as `allow`.
fn in_dialect(error: &ApiError, dialect: Dialect, first: &Response) -> Response {
    let mut response = error.response(dialect);
    if let Some(allow) = first.headers().get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

fn is_plain_text(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

/// The key in either of the two headers.
fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| text("x-api-key"))
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::internal("the server failed on this request").into_response()
}

/// Ids for requests that bring none.
#[derive(Clone)]
struct NewId;

impl MakeRequestId for NewId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&new_id("req_")).ok().map(RequestId::new)
    }
}
