//! The library's main interface: models, messages, options and answers. The command line and the
//! browser's program use it too.

mod answer;
mod chat_options;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod device;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod mlx;
mod model;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod open;

pub use answer::Answer;
pub use chat_options::ChatOptions;
pub use model::Model;
#[cfg(not(target_arch = "wasm32"))]
pub use open::ModelOptions;
