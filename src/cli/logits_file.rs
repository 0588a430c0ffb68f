//! A safetensors file with one tensor that is written row by row and appears only when whole.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{Error, Result};

/// Writes the f32 tensor `logits`. Until [`LogitsFile::finish`] the data stand in a temporary file
/// beside the target; if it is dropped before, nothing remains.
pub struct LogitsFile {
    target: PathBuf,
    temporary: Option<PathBuf>,
    writer: BufWriter<File>,
    /// Values that are still to come.
    missing: usize,
}

impl LogitsFile {
    /// Begins a tensor of shape `[rows, cols]`.
    pub fn create(target: &Path, rows: usize, cols: usize) -> Result<LogitsFile> {
        let failed = |source| Error::Io { path: target.to_owned(), source };
        let name = target.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(hidden);
        let file = File::create(&temporary).map_err(failed)?;
        let mut file = LogitsFile {
            target: target.to_owned(),
            temporary: Some(temporary),
            writer: BufWriter::new(file),
            missing: rows * cols,
        };
        file.write(&header(rows, cols))?;
        Ok(file)
    }

    /// Appends values, row after row.
    pub fn append(&mut self, values: &[f32]) -> Result<()> {
        self.missing = self
            .missing
            .checked_sub(values.len())
            .ok_or_else(|| Error::Device("the backend returned more logits than asked for".into()))?;
        // Little-endian, as the format wants it, on any host.
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(&bytes)
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<()> {
        if self.missing > 0 {
            return Err(Error::Device(format!("the backend returned {} logits too few", self.missing)));
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let renamed = self.writer.flush().and_then(|()| fs::rename(temporary, &self.target));
        renamed.map_err(|source| Error::Io { path: self.target.clone(), source })?;
        self.temporary = None;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|source| Error::Io { path: self.target.clone(), source })
    }
}

impl Drop for LogitsFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The error that led here is the one to report.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Length (u64) and JSON of the header, padded with spaces so that the data are aligned to 8 bytes.
fn header(rows: usize, cols: usize) -> Vec<u8> {
    let tensor = json!({ "dtype": "F32", "shape": [rows, cols], "data_offsets": [0, rows * cols * 4] });
    let mut text = json!({ "logits": tensor }).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}
