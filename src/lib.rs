//! Runs Google's Gemma 4 (and Gemma 3) text models in int4 on any GPU, from one set of WGSL
//! kernels.
//!
//! Most programs need five types. A [`Model`] opened with [`ModelOptions`] takes [`Message`]s and
//! [`ChatOptions`] and gives an [`Answer`].
//!
//! ```
//! use gemma4_wgpu::{ChatOptions, Message, Model};
//!
//! let mut model = Model::open("demo")?;
//! let options = ChatOptions {
//!     max_new_tokens: std::num::NonZeroUsize::new(8),
//!     ..ChatOptions::default()
//! };
//! for event in model.chat(&[Message::user("Once upon a time")], &options)? {
//!     println!("{:?}", event?);
//! }
//! # Ok::<(), gemma4_wgpu::Error>(())
//! ```
//!
//! The layers below:
//!
//! - [`checkpoint::Checkpoint`] gives a [`model::config::ModelConfig`] and tensors.
//! - [`backend::Backend`] packs the tensors for its device and runs the model.
//! - [`mod@text`] makes tokens of a prompt.
//! - [`generate`] passes tokens to the backend and chooses the next ones with [`sampling`].

mod api;
pub mod backend;
pub mod checkpoint;
pub mod convert;
pub mod cpu;
pub mod error;
pub mod generate;
pub mod gpu;
#[cfg(feature = "grammar")]
pub mod grammar;
#[cfg(not(target_arch = "wasm32"))]
pub mod hub;
mod json;
pub mod memory;
#[cfg(feature = "mlx")]
pub mod mlx;
pub mod model;
pub mod quant;
pub mod quantize;
pub mod sampling;
#[cfg(all(feature = "server", not(target_arch = "wasm32")))]
pub mod server;
pub mod text;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
mod tune;

#[cfg(not(target_arch = "wasm32"))]
pub use api::ModelOptions;
pub use api::{Answer, ChatOptions, Model};
pub use error::{Error, Result};
pub use text::Message;

/// The programs in `examples/`, which run as documentation tests.
#[cfg(doctest)]
mod examples {
    #[doc = concat!("```standalone_crate\n", include_str!("../examples/generate.rs"), "```")]
    struct Generate;
    #[doc = concat!("```standalone_crate\n", include_str!("../examples/logits.rs"), "```")]
    struct Logits;
    #[doc = concat!("```standalone_crate\n", include_str!("../examples/embed_in_app.rs"), "```")]
    struct EmbedInApp;
}
