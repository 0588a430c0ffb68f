//! Writes safetensors files while their bytes arrive. A file appears only when it is complete.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use crate::{checkpoint::new_file::NewFile, error::Result};

/// A tensor to write.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTensor {
    pub name: String,
    /// The format's spelling: `F32`, `U8`…
    pub dtype: &'static str,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// Writes a safetensors file, tensor by tensor. The file appears when it is complete.
pub struct SafetensorsWriter(NewFile);

impl SafetensorsWriter {
    /// Begins a file of these tensors, in this order. Errors: [`crate::Error::Io`].
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

/// Length (u64) and JSON of the header, padded with spaces so that the data is aligned to 8 bytes.
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
