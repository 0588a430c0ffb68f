//! The library's only error type. Every message is a single line that names the fault.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// All errors. `Display` gives one line that can be shown to users.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to open, map or read a file.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A checkpoint file is truncated, corrupt or not what its name says.
    #[error("{}: {reason}", path.display())]
    Checkpoint { path: PathBuf, reason: String },
    /// A tensor is missing, or has a shape or type that the model cannot use.
    #[error("tensor {name}: {reason}")]
    Tensor { name: String, reason: String },
    /// The model's configuration is incomplete or contradicts itself.
    #[error("model config: {0}")]
    Config(String),
    /// A well-formed input that this version cannot run; the text names it.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// There is no adapter.
    #[error("device: {0}")]
    NoAdapter(String),
    /// No adapter of that name, a lost device, a limit of the device.
    #[error("device: {0}")]
    Device(String),
    /// The tokenizer is missing, broken or refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template is broken or failed on these messages.
    #[error("chat template: {0}")]
    Template(String),
    /// A model that could not be downloaded. The text names the repository or file, and a remedy.
    #[error("{0}")]
    Download(String),
    /// An argument or a prompt that cannot be used. The text names a remedy.
    #[error("{0}")]
    Input(String),
}

/// Text from a file, quoted and shortened to fit the one line of a message.
pub(crate) fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    format!("\"{clean}\"")
}

impl Error {
    /// A [`Error::Io`].
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), source }
    }

    /// A [`Error::Tensor`].
    pub fn tensor(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Tensor { name: name.into(), reason: reason.into() }
    }

    /// A [`Error::Checkpoint`].
    pub fn checkpoint(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Checkpoint { path: path.into(), reason: reason.into() }
    }
}
