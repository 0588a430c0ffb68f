//! The safetensors file of `eval --logits-out`, which `--kl-divergence-base` reads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::checkpoint::HeadError;
use crate::checkpoint::safetensors::header;
use crate::checkpoint::safetensors::writer::{NewTensor, SafetensorsWriter};
use crate::error::{Error, Result};

/// The tensor's name.
const LOGITS: &str = "logits";

/// Writes the f32 tensor `logits`; see [`SafetensorsWriter`].
pub struct LogitsFile(SafetensorsWriter);

impl LogitsFile {
    /// Begins a tensor of shape `[rows, cols]`.
    pub fn create(target: &Path, rows: usize, cols: usize) -> Result<LogitsFile> {
        let bytes = 4 * (rows * cols) as u64;
        let logits =
            NewTensor { name: LOGITS.into(), dtype: "F32", shape: vec![rows, cols], bytes };
        SafetensorsWriter::create(target, &[logits], &BTreeMap::new()).map(LogitsFile)
    }

    /// Appends values, row after row.
    pub fn append(&mut self, values: &[f32]) -> Result<()> {
        // The format is little-endian on any host.
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.append(&bytes)
    }

    /// Renames the complete file to its final name.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

/// Reads such a file row by row.
pub struct BaseLogits {
    path: PathBuf,
    file: BufReader<File>,
}

impl BaseLogits {
    /// Errors: no such file, or one without a tensor `logits` of type f32 and shape `[rows, cols]`.
    pub fn open(path: &Path, rows: usize, cols: usize) -> Result<BaseLogits> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        // A header of one tensor is small. A larger one belongs to another kind of file.
        let mut head = Vec::new();
        file.by_ref().take(64 << 10).read_to_end(&mut head).map_err(failed)?;
        let (tensors, _) = header::parse_head(&head, bytes).map_err(|error| match error {
            HeadError::Short(_) => Error::checkpoint(path, "is no file of --logits-out"),
            HeadError::Bad(reason) => Error::checkpoint(path, reason),
        })?;
        let logits =
            tensors.iter().find(|tensor| tensor.name == LOGITS && tensor.dtype_name == "F32");
        let logits = logits.ok_or_else(|| {
            Error::checkpoint(path, "has no f32 tensor logits, as --logits-out writes it")
        })?;
        if logits.shape != [rows, cols] {
            let reason = format!(
                "has logits of shape {:?}; these tokens have [{rows}, {cols}]",
                logits.shape
            );
            return Err(Error::checkpoint(path, reason));
        }
        file.seek(SeekFrom::Start(logits.range.start)).map_err(failed)?;
        Ok(BaseLogits { path: path.to_owned(), file: BufReader::new(file) })
    }

    /// Reads the next `count` values.
    pub fn read(&mut self, count: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * count];
        self.file
            .read_exact(&mut bytes)
            .map_err(|source| Error::Io { path: self.path.clone(), source })?;
        Ok(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect())
    }
}
