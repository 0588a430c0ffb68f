//! The GGUF container, versions 2 and 3 (little-endian): metadata and the tensor directory, read
//! from bytes without copying. Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Every count, length and offset of the file is checked against the bytes that are there before it
//! is used, so that a hostile file costs an error and no memory.

use std::{collections::HashMap, ops::Range};

use crate::{
    checkpoint::{HeadError, gguf_types::dtype},
    error::quoted,
    quant::Dtype,
};

/// First bytes of every GGUF file.
pub const MAGIC: &[u8; 4] = b"GGUF";

/// More metadata pairs or tensors than any model has: a corrupt count.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_DIMENSIONS: u32 = 4;
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;

/// Element types of metadata, by their number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// Bytes of a value; for strings and arrays the least that one takes.
    fn min_bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }
}

/// A metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    /// Meant to be UTF-8, not checked yet.
    String(&'a [u8]),
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// A whole number that is not negative, whatever integer type holds it.
    pub fn unsigned(self) -> Option<u64> {
        match self {
            Value::Unsigned(value) => Some(value),
            Value::Signed(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// A number as f64.
    pub fn float(self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(value),
            Value::Unsigned(value) => Some(value as f64),
            Value::Signed(value) => Some(value as f64),
            _ => None,
        }
    }

    /// A bool, or an integer read as one.
    pub fn flag(self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(value),
            _ => self.unsigned().map(|value| value != 0),
        }
    }

    /// A string, if it is UTF-8.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// A metadata array, decoded while it is walked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (mut reader, kind) = (Reader::new(self.bytes, self.bytes.len() as u64), self.kind);
        // The bytes were walked once when the array was found: reading them again cannot fail.
        (0..self.len).map_while(move |_| reader.value(kind).ok())
    }
}

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTensor<'a> {
    pub name: &'a str,
    /// Outermost dimension first (the file has them innermost first).
    pub shape: Vec<usize>,
    /// ggml's number of the element type.
    pub type_id: u32,
    /// `None` for a type that this crate cannot read.
    pub dtype: Option<Dtype>,
    /// Bytes within the file; empty where `dtype` is `None`.
    pub range: Range<u64>,
}

/// A parsed file: its metadata and where its tensors lie.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    metadata: HashMap<&'a str, Value<'a>>,
    tensors: Vec<GgufTensor<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// Data of tensors, by name, where `bytes` need not reach them.
    kept: &'a [(String, Vec<u8>)],
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
            let (tensor, offset) = reader.tensor()?;
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
        Ok(Gguf { bytes: reader.bytes, metadata, tensors, by_name, kept: &[] })
    }

    /// The metadata value at `key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.metadata.get(key).copied()
    }

    /// The whole number at `key`. Errors if there is something else.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        self.typed(key, Value::unsigned, "a whole number")
    }

    /// The number at `key`. Errors if there is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>, String> {
        self.typed(key, Value::float, "a number")
    }

    /// The bool at `key`. Errors if there is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.typed(key, Value::flag, "a bool")
    }

    /// The string at `key`. Errors if there is something else, or not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.typed(key, Value::text, "a UTF-8 string")
    }

    /// The array at `key`. Errors if there is something else.
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

    /// The same file with the data of tensors that were read by themselves.
    pub(super) fn with_kept(self, kept: &'a [(String, Vec<u8>)]) -> Self {
        Gguf { kept, ..self }
    }

    /// The bytes of a tensor of this file; none if they were not given to [`Gguf::parse`].
    pub fn data(&self, tensor: &GgufTensor) -> &'a [u8] {
        match self.kept.iter().find(|(name, _)| name == tensor.name) {
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

/// Where the tensor lies in a file of `file_bytes` bytes. Errors unless it lies there whole.
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
    let Some(bytes) = stored_bytes(dtype, &tensor.shape) else {
        return fail(&format!("shape {:?} does not fit {dtype:?}", tensor.shape));
    };
    match data_start.checked_add(offset).and_then(|start| Some(start..start.checked_add(bytes)?)) {
        Some(range) if range.end <= file_bytes => Ok(range),
        _ => fail("reaches past the end of the file"),
    }
}

/// Bytes of a tensor; `None` if they overflow or its rows do not fill whole blocks.
pub(super) fn stored_bytes(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let elements =
        shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64))?;
    if !shape.last().unwrap_or(&1).is_multiple_of(dtype.block_len()) {
        return None;
    }
    (elements / dtype.block_len() as u64).checked_mul(dtype.block_bytes() as u64)
}

/// A part of `bytes`, if it lies there whole.
pub(super) fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> Option<&'a [u8]> {
    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// Walks the header.
struct Reader<'a> {
    /// The file's first bytes.
    bytes: &'a [u8],
    pos: usize,
    /// Bytes of the whole file.
    file_bytes: u64,
    /// Whether reading stopped at the end of `bytes` though the file goes on.
    short: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], file_bytes: u64) -> Self {
        Reader { bytes, pos: 0, file_bytes, short: false }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.pos.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.pos..end));
        self.short |= taken.is_none() && end.is_some_and(|end| end as u64 <= self.file_bytes);
        let taken = taken.ok_or_else(|| {
            format!("the file ends within its header (at byte {})", self.bytes.len())
        })?;
        self.pos += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of entries that follow.
    fn count(&mut self, what: &str) -> Result<u64, String> {
        match self.u64()? {
            count if count <= MAX_ENTRIES => Ok(count),
            count => Err(format!("claims {count} {what}: corrupt")),
        }
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let len = self.u64()?;
        let len =
            usize::try_from(len).map_err(|_| format!("a string claims {len} bytes: corrupt"))?;
        self.take(len)
    }

    fn name(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.string()?).map_err(|_| "a name is not UTF-8: corrupt".into())
    }

    fn metadata(&mut self, count: u64) -> Result<HashMap<&'a str, Value<'a>>, String> {
        let mut metadata = HashMap::new();
        for _ in 0..count {
            let key = self.name()?;
            let in_key = |reason: String| format!("metadata {}: {reason}", quoted(key));
            let value = self.kind().and_then(|kind| self.value(kind)).map_err(in_key)?;
            if metadata.insert(key, value).is_some() {
                return Err(in_key("is there twice".into()));
            }
        }
        Ok(metadata)
    }

    fn kind(&mut self) -> Result<Kind, String> {
        let id = self.u32()?;
        let kind = usize::try_from(id).ok().and_then(|id| Kind::ALL.get(id));
        kind.copied().ok_or_else(|| format!("unknown value type {id}"))
    }

    fn value(&mut self, kind: Kind) -> Result<Value<'a>, String> {
        Ok(match kind {
            Kind::U8 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            Kind::U16 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            Kind::U32 => Value::Unsigned(self.u32()?.into()),
            Kind::U64 => Value::Unsigned(self.u64()?),
            Kind::I8 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            Kind::I16 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            Kind::I32 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            Kind::I64 => Value::Signed(i64::from_le_bytes(self.array()?)),
            Kind::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            Kind::Bool => Value::Bool(self.array::<1>()? != [0]),
            Kind::String => Value::String(self.string()?),
            Kind::Array => Value::Array(self.array_value()?),
        })
    }

    fn array_value(&mut self) -> Result<Array<'a>, String> {
        let kind = self.kind()?;
        let len = self.u64()?;
        if kind == Kind::Array {
            return Err("arrays of arrays are not supported".into());
        }
        let bytes = usize::try_from(len).ok().and_then(|len| len.checked_mul(kind.min_bytes()));
        let fits = bytes.filter(|&bytes| bytes as u64 <= self.file_bytes - self.pos as u64);
        let (Some(bytes), Ok(len)) = (fits, usize::try_from(len)) else {
            return Err(format!("an array claims {len} elements, more than the file holds"));
        };
        let start = self.pos;
        match kind {
            Kind::String => (0..len).try_for_each(|_| self.string().map(drop))?,
            _ => drop(self.take(bytes)?),
        }
        Ok(Array { kind, len, bytes: &self.bytes[start..self.pos] })
    }

    /// A directory entry, its range still unknown, and its offset within the data.
    fn tensor(&mut self) -> Result<(GgufTensor<'a>, u64), String> {
        let name = self.name()?;
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(format!("tensor {} has {dimensions} dimensions: corrupt", quoted(name)));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64()?;
            // ggml's sizes are signed.
            let size = i64::try_from(size).ok().and_then(|size| usize::try_from(size).ok());
            shape.push(
                size.ok_or_else(|| {
                    format!("tensor {} has a negative size: corrupt", quoted(name))
                })?,
            );
        }
        shape.reverse();
        let type_id = self.u32()?;
        let tensor = GgufTensor { name, shape, type_id, dtype: dtype(type_id), range: 0..0 };
        Ok((tensor, self.u64()?))
    }
}
