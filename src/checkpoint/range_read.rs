//! Bytes that are neither in memory nor mapped: a browser's file, or a server's.

use std::{ops::Range, path::Path};

use crate::error::{Error, Result};
use crate::model::source::LocalBoxFuture;

/// What threads can share, where there are threads: a browser's objects stay in their worker.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shareable: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync> Shareable for T {}
#[cfg(target_arch = "wasm32")]
pub trait Shareable {}
#[cfg(target_arch = "wasm32")]
impl<T> Shareable for T {}

/// Bytes that are somewhere else.
pub trait RangeRead: Shareable {
    /// Bytes of the whole.
    fn len(&self) -> u64;

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`, which lies within the whole. Errors: what went wrong, in one line.
    fn read(&self, range: Range<u64>) -> LocalBoxFuture<'_, Result<Vec<u8>, String>>;
}

impl dyn RangeRead {
    /// All bytes of `range` of the file `path`, or an error that names it.
    pub(super) async fn read_exactly(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>> {
        let wanted = range.end - range.start;
        let bytes =
            self.read(range.clone()).await.map_err(|reason| Error::checkpoint(path, reason))?;
        match bytes.len() as u64 == wanted {
            true => Ok(bytes),
            false => {
                let reason = format!(
                    "gave {} bytes from {} on instead of {wanted}",
                    bytes.len(),
                    range.start
                );
                Err(Error::checkpoint(path, reason))
            }
        }
    }
}

/// A file of a checkpoint: its name without directories, and its bytes.
pub struct NamedFile {
    pub name: String,
    pub bytes: Box<dyn RangeRead>,
}
