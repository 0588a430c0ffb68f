//! A new file that appears only when it is complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file of tensors. Until [`NewFile::finish`] the data is in a temporary file beside the target.
/// Dropping it earlier leaves no file.
pub struct NewFile {
    target: PathBuf,
    temporary: Option<PathBuf>,
    writer: BufWriter<File>,
    /// Bytes that are still to come.
    missing: u64,
}

impl NewFile {
    /// Begins a file with this header and `bytes` bytes after it. Errors: [`Error::Io`].
    pub fn create(target: &Path, header: &[u8], bytes: u64) -> Result<Self> {
        let failed = |source| Error::Io { path: target.to_owned(), source };
        let name =
            target.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(hidden);
        let file = File::create(&temporary).map_err(failed)?;
        let mut writer = NewFile {
            target: target.to_owned(),
            temporary: Some(temporary),
            writer: BufWriter::new(file),
            missing: header.len() as u64 + bytes,
        };
        writer.append(header)?;
        Ok(writer)
    }

    /// Appends bytes. Errors if there are more than the tensors have.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let missing = self.missing.checked_sub(bytes.len() as u64);
        self.missing = missing
            .ok_or_else(|| Error::checkpoint(&self.target, "more bytes than its tensors have"))?;
        self.writer
            .write_all(bytes)
            .map_err(|source| Error::Io { path: self.target.clone(), source })
    }

    /// Gives the file its name. Errors if bytes are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.missing > 0 {
            return Err(Error::checkpoint(
                &self.target,
                format!("{} bytes are missing", self.missing),
            ));
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let renamed = self.writer.flush().and_then(|()| fs::rename(temporary, &self.target));
        renamed.map_err(|source| Error::Io { path: self.target.clone(), source })?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The error that led here is the one to report.
            let _ = fs::remove_file(temporary);
        }
    }
}
