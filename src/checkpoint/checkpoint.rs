//! [`Checkpoint`]: the files of a checkpoint. They are found, memory-mapped (or embedded) and
//! indexed by tensor name.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use crate::checkpoint::experts;
use crate::checkpoint::import::grouped_ranges;
use crate::checkpoint::model_file::ModelFile;
use crate::checkpoint::tensor_index::{Content, Entry, TensorIndex, grouped_bytes};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::source::{LocalBoxFuture, TensorInfo, TensorSource};
use crate::quant::Dtype;

/// A checkpoint on disk or embedded. Files are memory-mapped, and tensors are slices of the map.
pub struct Checkpoint {
    pub(super) config: ModelConfig,
    pub(super) description: String,
    pub(super) format: Format,
    pub(super) files: Vec<ModelFile>,
    pub(super) tensors: TensorIndex,
    /// See [`Checkpoint::copy_reads`].
    pub(super) copy_reads: bool,
    /// Tokenizer and config files of a checkpoint that is read by ranges.
    pub(super) sidecar_files: Option<HashMap<String, Vec<u8>>>,
    /// Tensors of the files that no model of the family has, by their own names.
    pub(super) skipped: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// safetensors, with config.json and tokenizer files beside them.
    HuggingFace,
    /// The same, embedded in the program.
    Demo,
    Gguf,
}

impl Checkpoint {
    /// Bytes of all files that hold weights.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(ModelFile::len).sum()
    }

    /// Whether the weights are safetensors files.
    pub fn is_hugging_face(&self) -> bool {
        self.format == Format::HuggingFace
    }

    /// The model's name and format in a few words: `Gemma 3 270m, GGUF`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// From now on files are read into new memory where possible, instead of borrowed from the
    /// maps. The system counts a map's pages as memory of the process until it needs them
    /// elsewhere.
    pub fn copy_reads(&mut self) {
        self.copy_reads = true;
    }

    /// Whether files are read by ranges.
    fn is_ranged(&self) -> bool {
        self.files.iter().any(ModelFile::is_ranged)
    }

    /// Finds the formats of grouped integers in files that are read by ranges. Opening did not do
    /// it.
    ///
    /// Errors: parts that do not fit together, a failed read.
    pub(super) async fn settle_formats(&mut self) -> Result<()> {
        for (name, entry) in &mut self.tensors {
            if let Content::Joined { parts, .. } = &mut entry.content {
                for part in &mut *parts {
                    let own_name = part.own_name.clone();
                    settle_format(&self.files, &own_name, part).await?;
                }
                experts::unify(parts)?;
                entry.info.dtype = parts[0].info.dtype;
            }
            settle_format(&self.files, name, entry).await?;
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| Error::tensor(name, "missing from the checkpoint"))
    }

    /// Bytes of some rows of a tensor.
    async fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>> {
        self.rows_of(self.entry(name)?, name, rows).await
    }

    async fn rows_of<'a>(
        &'a self,
        entry: &'a Entry,
        name: &str,
        rows: Range<usize>,
    ) -> Result<Cow<'a, [u8]>> {
        let (count, row_elements) = match entry.info.shape.as_slice() {
            [] => (1, 1),
            [len] => (1, *len),
            [rows, inner @ ..] => (*rows, inner.iter().product()),
        };
        if rows.start > rows.end || rows.end > count {
            return Err(Error::tensor(name, format!("rows {rows:?} of {count}")));
        }
        let beyond = || Error::tensor(name, "reaches past the end of its file");
        match &entry.content {
            Content::Stored((file, place)) => {
                let bytes = entry
                    .info
                    .dtype
                    .bytes_of(row_elements)
                    .map_err(|reason| Error::tensor(name, reason))?;
                let at = |row: usize| place.start + row as u64 * bytes as u64;
                let range = at(rows.start)..at(rows.end);
                match self.files.get(*file) {
                    Some(file) if range.end <= place.end && range.end <= file.len() => {
                        file.read(range, self.copy_reads).await
                    }
                    _ => Err(beyond()),
                }
            }
            Content::Joined { parts, block } => {
                let mut bytes = Vec::new();
                let mut next = rows.start;
                while next < rows.end {
                    let (number, within) = (next / block, next % block);
                    let taken = (block - within).min(rows.end - next);
                    let part = &parts[number % parts.len()];
                    let first = number / parts.len() * block + within;
                    let read = self.rows_of(part, &part.own_name, first..first + taken);
                    bytes.extend_from_slice(&Box::pin(read).await?);
                    next += taken;
                }
                Ok(Cow::Owned(bytes))
            }
            Content::Grouped(imported, format) if self.is_ranged() => {
                let packed =
                    grouped_ranges::pack(&self.files, name, imported, rows, *format).await?;
                Ok(Cow::Owned(packed.to_bytes()))
            }
            Content::Grouped(imported, format) => {
                let bytes = grouped_bytes(&self.files, imported).ok_or_else(beyond)?;
                let packed = imported.grouped.pack(bytes, rows, *format);
                packed
                    .map(|packed| Cow::Owned(packed.to_bytes()))
                    .map_err(|reason| Error::tensor(name, reason))
            }
        }
    }
}

async fn settle_format(files: &[ModelFile], name: &str, entry: &mut Entry) -> Result<()> {
    if let Content::Grouped(imported, format) = &mut entry.content {
        *format = grouped_ranges::format(files, name, imported).await?;
        entry.info.dtype = Dtype::Packed(*format);
    }
    Ok(())
}

impl TensorSource for Checkpoint {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|entry| entry.info.clone())
    }

    fn missing(&self, name: &str) -> Error {
        self.explain_missing(name)
    }

    fn read<'a>(
        &'a self,
        name: &'a str,
        rows: Range<usize>,
    ) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        Box::pin(self.rows(name, rows))
    }
}
