//! The contents of a directory, and files that are only placeholders.

use std::path::Path;

use crate::error::{Error, Result};

/// Errors if the bytes are a Git LFS pointer instead of the file.
pub(super) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    match bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        true => Err(Error::checkpoint(path, "is a Git LFS pointer, not the file: git lfs pull")),
        false => Ok(()),
    }
}

/// Names of a directory's entries, sorted.
pub(super) fn file_names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|source| Error::io(directory, source))? {
        let entry = entry.map_err(|source| Error::io(directory, source))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
