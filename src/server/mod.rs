//! An HTTP server with the APIs of OpenAI, Anthropic and Ollama. Each dialect translates to and
//! from the form in `chat`. [`Engine::new`] gives a handle and a loop, which a thread of
//! its own runs on a [`Scheduler`](crate::generate::Scheduler). [`router()`] has the paths, and
//! [`serve()`] answers connections until it is shut down.

mod anthropic;
mod app;
mod chat;
mod engine;
mod error;
mod fields;
mod info;
mod metrics;
mod ollama;
mod openai;
mod responses;
mod router;
mod serve;
mod sse;

pub use app::{App, ServerOptions};
pub use engine::{Engine, EngineLoop};
pub use error::ApiError;
pub use router::router;
pub use serve::serve;
