//! The safetensors file of `eval --logits-out`.

use std::{collections::BTreeMap, path::Path};

use crate::{
    Result,
    checkpoint::writer::{NewTensor, SafetensorsWriter},
};

/// Writes the f32 tensor `logits`; see [`SafetensorsWriter`].
pub struct LogitsFile(SafetensorsWriter);

impl LogitsFile {
    /// Begins a tensor of shape `[rows, cols]`.
    pub fn create(target: &Path, rows: usize, cols: usize) -> Result<LogitsFile> {
        let bytes = 4 * (rows * cols) as u64;
        let logits = NewTensor { name: "logits".into(), dtype: "F32", shape: vec![rows, cols], bytes };
        SafetensorsWriter::create(target, &[logits], &BTreeMap::new()).map(LogitsFile)
    }

    /// Appends values, row after row.
    pub fn append(&mut self, values: &[f32]) -> Result<()> {
        // Little-endian, as the format wants it, on any host.
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.append(&bytes)
    }

    /// Gives the file its name.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}
