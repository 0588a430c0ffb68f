//! The GGUF container, versions 2 and 3 (little-endian): metadata and the tensor directory, read
//! from bytes without copying. Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Every count, length and offset is checked against the available bytes before its use. A hostile
//! file thus causes an error and takes no memory.

use std::{collections::HashMap, ops::Range};

use crate::checkpoint::gguf::types::dtype;
use crate::checkpoint::gguf::value::{Array, Reader, Value};
use crate::checkpoint::head_error::HeadError;
use crate::checkpoint::model_file::slice;
use crate::error::quoted;
use crate::quant::Dtype;

/// First bytes of every GGUF file.
pub const MAGIC: &[u8; 4] = b"GGUF";

const MAX_DIMENSIONS: u32 = 4;
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTensor<'a> {
    pub name: &'a str,
    /// Outermost dimension first. The file has the innermost first.
    pub shape: Vec<usize>,
    /// ggml's number of the element type.
    pub type_id: u32,
    /// `None` for a type that this crate cannot read.
    pub dtype: Option<Dtype>,
    /// Bytes within the file; empty where `dtype` is `None`.
    pub range: Range<u64>,
}

/// A parsed file: its metadata and the ranges of its tensors.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    metadata: HashMap<&'a str, Value<'a>>,
    tensors: Vec<GgufTensor<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// Data of tensors by name, for those beyond `bytes`.
    cached: &'a [(String, Vec<u8>)],
}

impl<'a> Gguf<'a> {
    /// Reads the metadata and the tensor directory of a whole file.
    ///
    /// Errors: what is wrong with the file, in one line.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        Self::parse_head(bytes, bytes.len() as u64).map_err(HeadError::reason)
    }

    /// The same from the first bytes of a file of `file_bytes` bytes.
    ///
    /// Errors: [`HeadError::Short`] if more of the file is needed.
    pub fn parse_head(head: &'a [u8], file_bytes: u64) -> Result<Self, HeadError> {
        let mut reader = Reader::new(head, file_bytes);
        let parsed = Self::read(&mut reader);
        parsed.map_err(
            |reason| if reader.short { HeadError::Short(reason) } else { HeadError::Bad(reason) },
        )
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, String> {
        if reader.take(4)? != MAGIC {
            return Err("not a GGUF file (wrong magic)".into());
        }
        match reader.u32()? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => {
                return Err("big-endian GGUF is not supported".into());
            }
            version => {
                return Err(format!("GGUF version {version} is not supported (2 and 3 are)"));
            }
        }
        let tensor_count = reader.count("tensors")?;
        let metadata_count = reader.count("metadata pairs")?;
        let metadata = reader.metadata(metadata_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = Vec::new();
        let mut offsets = Vec::new();
        for _ in 0..tensor_count {
            let (tensor, offset) = read_tensor(reader)?;
            tensors.push(tensor);
            offsets.push(offset);
        }
        let data_start = (reader.pos as u64).next_multiple_of(alignment);
        let mut by_name = HashMap::new();
        for (index, (tensor, offset)) in tensors.iter_mut().zip(offsets).enumerate() {
            tensor.range = tensor_range(tensor, offset, data_start, alignment, reader.file_bytes)?;
            if by_name.insert(tensor.name, index).is_some() {
                return Err(format!("tensor {} is there twice", quoted(tensor.name)));
            }
        }
        Ok(Gguf { bytes: reader.bytes, metadata, tensors, by_name, cached: &[] })
    }

    /// The metadata value at `key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.metadata.get(key).copied()
    }

    /// The whole number at `key`. Errors if the value has another type.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        self.typed(key, Value::unsigned, "a whole number")
    }

    /// The number at `key`. Errors if the value has another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>, String> {
        self.typed(key, Value::float, "a number")
    }

    /// The bool at `key`. Errors if the value has another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.typed(key, Value::flag, "a bool")
    }

    /// The string at `key`. Errors if the value has another type or is not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.typed(key, Value::text, "a UTF-8 string")
    }

    /// The array at `key`. Errors if the value has another type.
    pub fn array(&self, key: &str) -> Result<Option<Array<'a>>, String> {
        let as_array = |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        };
        self.typed(key, as_array, "an array")
    }

    fn typed<T>(
        &self,
        key: &str,
        convert: impl Fn(Value<'a>) -> Option<T>,
        wanted: &str,
    ) -> Result<Option<T>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("{key} is not {wanted}")),
            },
        }
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[GgufTensor<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor<'a>> {
        self.by_name.get(name).and_then(|&index| self.tensors.get(index))
    }

    /// The same file with the data of tensors that were read separately.
    pub(super) fn with_cached(self, cached: &'a [(String, Vec<u8>)]) -> Self {
        Gguf { cached, ..self }
    }

    /// The bytes of a tensor of this file. `None` if [`Gguf::parse`] did not get them.
    pub fn data(&self, tensor: &GgufTensor) -> &'a [u8] {
        match self.cached.iter().find(|(name, _)| name == tensor.name) {
            Some((_, data)) => data,
            None => slice(self.bytes, &tensor.range).unwrap_or_default(),
        }
    }
}

fn alignment(metadata: &HashMap<&str, Value>) -> Result<u64, String> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(value) => value
            .unsigned()
            .filter(|bytes| bytes.is_power_of_two() && *bytes <= u32::MAX.into())
            .ok_or_else(|| "general.alignment is not a power of two".into()),
    }
}

/// The tensor's range in a file of `file_bytes` bytes. Errors unless all of it is in the file.
fn tensor_range(
    tensor: &GgufTensor,
    offset: u64,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<Range<u64>, String> {
    let fail = |reason: &str| Err(format!("tensor {}: {reason}", quoted(tensor.name)));
    if !offset.is_multiple_of(alignment) {
        return fail(&format!("offset {offset} is not a multiple of the alignment {alignment}"));
    }
    let Some(dtype) = tensor.dtype else { return Ok(0..0) };
    let Some(bytes) = dtype.tensor_bytes(&tensor.shape) else {
        return fail(&format!("shape {:?} does not fit {dtype:?}", tensor.shape));
    };
    match data_start.checked_add(offset).and_then(|start| Some(start..start.checked_add(bytes)?)) {
        Some(range) if range.end <= file_bytes => Ok(range),
        _ => fail("reaches past the end of the file"),
    }
}

/// A directory entry without its range, and its offset within the data.
fn read_tensor<'a>(reader: &mut Reader<'a>) -> Result<(GgufTensor<'a>, u64), String> {
    let name = reader.name()?;
    let dimensions = reader.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(format!("tensor {} has {dimensions} dimensions: corrupt", quoted(name)));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = reader.u64()?;
        // ggml's sizes are signed.
        let size = i64::try_from(size).ok().and_then(|size| usize::try_from(size).ok());
        shape.push(
            size.ok_or_else(|| format!("tensor {} has a negative size: corrupt", quoted(name)))?,
        );
    }
    shape.reverse();
    let type_id = reader.u32()?;
    let tensor = GgufTensor { name, shape, type_id, dtype: dtype(type_id), range: 0..0 };
    Ok((tensor, reader.u64()?))
}
