//! Errors, in the form of each dialect.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::Error;
use crate::generate::Refused;

/// The API whose form an error has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    /// The API to which a path belongs.
    pub fn of(path: &str) -> Dialect {
        match path {
            path if path.starts_with("/v1/messages") => Dialect::Anthropic,
            path if path.starts_with("/api/") => Dialect::Ollama,
            _ => Dialect::OpenAi,
        }
    }
}

/// An answer that says why a request failed.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    kind: &'static str,
    code: Option<&'static str>,
    /// The field of the request that is at fault.
    param: Option<String>,
    /// Seconds until the client should try again.
    retry_after: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        let message = message.into();
        ApiError { status, message, kind, code: None, param: None, retry_after: None }
    }

    /// 400: the client's mistake.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400 for the value of a field.
    pub fn bad_field(field: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(field.into()), ..ApiError::bad_request(message) }
    }

    /// 400 for a field that changes the answer in a way that this server cannot.
    pub fn unsupported(field: &str, what: &str) -> ApiError {
        let message = format!("{what} is not supported: leave {field} out");
        ApiError { code: Some("unsupported_value"), ..ApiError::bad_field(field, message) }
    }

    /// 400 for an endpoint that this kind of model cannot have.
    pub fn no_embeddings() -> ApiError {
        let message = "this server generates text: it has no embeddings";
        ApiError { code: Some("unsupported_endpoint"), ..ApiError::bad_request(message) }
    }

    /// 404: no model of this name.
    pub fn no_model(name: &str) -> ApiError {
        let message = format!("the model {name:?} is not loaded; /v1/models lists what is");
        let error = ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        ApiError { code: Some("model_not_found"), param: Some("model".into()), ..error }
    }

    /// 404: no such path.
    pub fn no_path(path: &str) -> ApiError {
        let message = format!("no such path: {path:?}");
        ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 405.
    pub fn no_method(method: &str) -> ApiError {
        let message = format!("the path does not take {method}");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// 413.
    pub fn body_too_large(most: usize) -> ApiError {
        let message = format!("the body is larger than {most} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// 401.
    pub fn unauthorized() -> ApiError {
        let message =
            "a valid API key is needed, as \"Authorization: Bearer KEY\" or \"x-api-key\"";
        let error = ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message);
        ApiError { code: Some("invalid_api_key"), ..error }
    }

    /// 503: the server takes no requests at the moment.
    pub fn unavailable(message: impl Into<String>, retry_after: u32) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        ApiError { retry_after: Some(retry_after), ..error }
    }

    /// 500: a fault of the server.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// A step that failed on the device.
    pub fn failed(error: &Arc<Error>) -> ApiError {
        ApiError::unavailable(error.to_string(), 5)
    }

    /// The body of the answer, or the data of an event in a stream.
    pub fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => self.openai_body(),
            Dialect::Anthropic => {
                let error = json!({"type": self.anthropic_kind(), "message": self.message});
                json!({"type": "error", "error": error})
            }
            Dialect::Ollama => json!({"error": self.message}),
        }
    }

    /// The name of the error in Anthropic's API.
    fn anthropic_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 | 503 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }

    /// The status in a dialect.
    fn status(&self, dialect: Dialect) -> StatusCode {
        match (self.status, dialect) {
            (StatusCode::TOO_MANY_REQUESTS, Dialect::Anthropic) => {
                StatusCode::from_u16(529).unwrap_or(self.status)
            }
            (status, _) => status,
        }
    }

    /// The message for a log, or for a part of an answer.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn openai_body(&self) -> Value {
        let code = match self.code {
            Some(code) => json!(code),
            None if self.status.is_server_error() => json!(self.status.as_u16()),
            None => Value::Null,
        };
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": code,
        }})
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        let message = refused.to_string();
        match refused {
            Refused::QueueFull { .. } => {
                let error =
                    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                ApiError { code: Some("queue_full"), retry_after: Some(2), ..error }
            }
            Refused::PromptTooLong { .. } => {
                ApiError { code: Some("context_length_exceeded"), ..ApiError::bad_request(message) }
            }
            Refused::Invalid(_) => ApiError::bad_request(message),
        }
    }
}

/// Texts and templates that the request makes fail.
impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        ApiError::bad_request(error.to_string())
    }
}

impl ApiError {
    /// The answer in the form of a dialect.
    pub fn response(&self, dialect: Dialect) -> Response {
        let mut response = (self.status(dialect), axum::Json(self.body(dialect))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The router gives the error, which is an extension of the response, the form of its path.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.response(Dialect::OpenAi);
        response.extensions_mut().insert(self);
        response
    }
}
