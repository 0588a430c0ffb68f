//! What a directory holds, and files that are only stand-ins.

use std::path::Path;

use crate::error::{Error, Result};

/// Errors if the bytes are what Git leaves of a large file without Git LFS.
pub(super) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    match bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        true => Err(Error::checkpoint(path, "is a Git LFS pointer, not the file: git lfs pull")),
        false => Ok(()),
    }
}

/// Names of what a directory holds, sorted.
pub(super) fn file_names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|source| Error::io(directory, source))? {
        let entry = entry.map_err(|source| Error::io(directory, source))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
