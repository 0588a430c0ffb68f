//! Streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::Value;

/// The time without an event after which a comment keeps proxies from closing the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum SseEvent {
    /// Data without a name.
    Data(Value),
    /// Data whose field `type` is the event's name too.
    Typed(Value),
    /// OpenAI's mark at the end of a whole answer.
    Done,
}

/// A response of these events. It ends with the last of them.
pub fn response(events: impl Stream<Item = SseEvent> + Send + 'static) -> Response {
    let events = async_stream::stream! {
        for await event in events {
            yield Ok::<_, Infallible>(match event {
                SseEvent::Data(data) => Event::default().data(data.to_string()),
                SseEvent::Typed(data) => {
                    let name = data["type"].as_str().unwrap_or_default();
                    Event::default().event(name).data(data.to_string())
                }
                SseEvent::Done => Event::default().data("[DONE]"),
            });
        }
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    unbuffered(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// Proxies such as nginx would otherwise collect a stream's pieces.
pub fn unbuffered(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("cache-control", HeaderValue::from_static("no-cache"));
    response
}
