//! Checkpoints on disk: memory-mapped tensors by name. This room knows nothing of devices.

pub mod assets;
#[allow(clippy::module_inception)] // the room's one type
pub mod checkpoint;
mod decide;
mod demo;
mod directory;
mod expert_names;
mod experts;
pub mod gguf;
mod head;
mod head_error;
mod import;
mod model_file;
pub mod names;
mod new_file;
mod open;
mod open_ranged;
pub(crate) mod part_name;
mod range_read;
pub mod safetensors;
mod tensor_index;
mod unused;

pub use checkpoint::Checkpoint;
pub use head_error::HeadError;
pub use range_read::{NamedFile, RangeRead, Shareable};
pub use unused::UnusedTensors;
