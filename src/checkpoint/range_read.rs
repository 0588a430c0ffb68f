//! Bytes that are neither in memory nor mapped, such as a browser's or a server's file.

use std::{ops::Range, path::Path};

use crate::error::{Error, Result};
use crate::model::source::LocalBoxFuture;

/// Must be shareable between threads, except in a browser, whose objects stay in their worker.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shareable: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync> Shareable for T {}
#[cfg(target_arch = "wasm32")]
pub trait Shareable {}
#[cfg(target_arch = "wasm32")]
impl<T> Shareable for T {}

/// Bytes in another place.
pub trait RangeRead: Shareable {
    /// Number of bytes in all.
    fn len(&self) -> u64;

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`, which is within the whole. Errors: the reason, in one line.
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
