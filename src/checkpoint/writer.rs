//! Writes safetensors files as their bytes come; a file appears only when it is whole.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTensor {
    pub name: String,
    /// As the format writes it: `F32`, `U8`…
    pub dtype: &'static str,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// Writes a safetensors file: see [`NewFile`].
pub struct SafetensorsWriter(NewFile);

impl SafetensorsWriter {
    /// Begins a file of these tensors, in this order. Errors: [`Error::Io`].
    pub fn create(
        target: &Path,
        tensors: &[NewTensor],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
        NewFile::create(target, &header(tensors, metadata), bytes).map(SafetensorsWriter)
    }

    /// Appends bytes of the tensors, one after another. Errors if there are more than the tensors
    /// have.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.append(bytes)
    }

    /// Gives the file its name. Errors if bytes are missing.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

/// A file of tensors. Until [`NewFile::finish`] the data stand in a temporary file beside the
/// target; if it is dropped before, nothing remains.
pub struct NewFile {
    target: PathBuf,
    temporary: Option<PathBuf>,
    writer: BufWriter<File>,
    /// Bytes that are still to come.
    missing: u64,
}

impl NewFile {
    /// Begins a file with this header and so many bytes after it. Errors: [`Error::Io`].
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

/// Length (u64) and JSON of the header, padded with spaces so that the data are aligned to 8 bytes.
fn header(tensors: &[NewTensor], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), json!(metadata));
    }
    let mut begin = 0;
    for NewTensor { name, dtype, shape, bytes } in tensors {
        let end = begin + bytes;
        entries.insert(
            name.clone(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] }),
        );
        begin = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}
