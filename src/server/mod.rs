//! An HTTP server with OpenAI's API. [`Engine::new`] gives a handle and a loop, which a thread of
//! its own runs on a [`Scheduler`](crate::generate::Scheduler). [`router()`] has the paths, and
//! [`serve()`] answers connections until it is shut down.

mod answer;
mod app;
mod chat;
mod completions;
mod engine;
mod error;
mod events;
mod fields;
mod generation;
mod info;
mod messages;
mod metrics;
mod router;
mod serve;

pub use app::{App, ServerOptions};
pub use engine::{Engine, EngineLoop};
pub use error::ApiError;
pub use router::router;
pub use serve::serve;
