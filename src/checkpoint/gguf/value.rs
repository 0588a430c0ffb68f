//! Values of a GGUF file's metadata, and the reader of its header.
//!
//! Every count and length of the file is checked against the available bytes before its use.

use std::collections::HashMap;

use crate::error::quoted;

/// More metadata pairs or tensors than any model has: a corrupt count.
const MAX_ENTRIES: u64 = 1 << 16;

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

    /// Bytes of a value. For strings and arrays this is the minimum.
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
    /// Should be UTF-8, but is not checked yet.
    String(&'a [u8]),
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// A whole number that is not negative, from any integer type.
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

    /// A bool, or an integer interpreted as one.
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

/// A metadata array, which is decoded during iteration.
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
        // Parsing read these bytes once without error, so that reading them again cannot fail.
        (0..self.len).map_while(move |_| reader.value(kind).ok())
    }
}

/// Reads the header in order.
pub(super) struct Reader<'a> {
    /// The file's first bytes.
    pub(super) bytes: &'a [u8],
    pub(super) pos: usize,
    /// Bytes of the whole file.
    pub(super) file_bytes: u64,
    /// Whether reading stopped at the end of `bytes`, although the file is longer.
    pub(super) short: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], file_bytes: u64) -> Self {
        Reader { bytes, pos: 0, file_bytes, short: false }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
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

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// The number of entries that follow.
    pub(super) fn count(&mut self, what: &str) -> Result<u64, String> {
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

    pub(super) fn name(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.string()?).map_err(|_| "a name is not UTF-8: corrupt".into())
    }

    pub(super) fn metadata(&mut self, count: u64) -> Result<HashMap<&'a str, Value<'a>>, String> {
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
}
