//! Streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::Value;

use super::error::ApiError;

/// The time without an event after which a comment keeps proxies from closing the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A response of these chunks and `[DONE]`. An error is the last event of its stream. `[DONE]` does
/// not follow it, so that no client takes a broken answer for a whole one.
pub fn response(chunks: impl Stream<Item = Result<Value, ApiError>> + Send + 'static) -> Response {
    let events = async_stream::stream! {
        for await chunk in chunks {
            match chunk {
                Ok(chunk) => yield Ok::<_, Infallible>(Event::default().data(chunk.to_string())),
                Err(error) => {
                    yield Ok(Event::default().data(error.body().to_string()));
                    return;
                }
            }
        }
        yield Ok(Event::default().data("[DONE]"));
    };
    let mut response =
        Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies such as nginx would otherwise collect events.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
