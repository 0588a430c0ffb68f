//! The form that all dialects translate to and from: one conversation in, events out.

mod answer;
mod event;
mod history;
mod request;
mod run;

pub use answer::{Answer, Item, collect};
pub use event::{ChatEvent, End, EndReason, Piece, Pieces, TokenChoice, Usage};
pub use request::{ChatRequest, Generation, ToolChoice};
pub use run::{prompt, prompt_text, start};
