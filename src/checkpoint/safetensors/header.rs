//! The header of a safetensors file: a little-endian u64 length, that many bytes of JSON, then the
//! tensors' bytes. Format: <https://github.com/huggingface/safetensors#format>.
//!
//! In this project's own form (docs/formats.md) int matrices are rows of bytes, and the metadata
//! describes them.
//!
//! The `safetensors` crate refuses a whole file for one unknown dtype, and accepts a repeated name.
//! Here skipped tensors may have any dtype.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::quoted;
use crate::json;
use crate::quant::{Dtype, PackFormat};

use crate::checkpoint::head_error::HeadError;

/// Longer headers are corrupt (the reference implementation's limit).
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    pub name: String,
    /// As the file writes it: `BF16`, `F8_E4M3`…
    pub dtype_name: String,
    /// `None` for a dtype that this crate cannot read.
    pub dtype: Option<Dtype>,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Bytes within the file.
    pub range: Range<u64>,
}

/// A file's tensors, and the texts of its metadata.
pub type Contents = (Vec<StoredTensor>, HashMap<String, String>);

/// The tensors of a whole file, in the order of their bytes.
///
/// Errors: what is wrong with the file, in one line.
pub fn parse(file: &[u8]) -> Result<Vec<StoredTensor>, String> {
    parse_head(file, file.len() as u64).map(|(tensors, _)| tensors).map_err(HeadError::reason)
}

/// The tensors and the texts of the metadata, from the first bytes of a file of `file_bytes` bytes.
///
/// Errors: [`HeadError::Short`] if more of the file is needed.
pub fn parse_head(head: &[u8], file_bytes: u64) -> Result<Contents, HeadError> {
    let short = "shorter than a safetensors header";
    let (length, rest) =
        head.split_first_chunk::<8>().ok_or_else(|| HeadError::Bad(short.into()))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        let reason =
            format!("claims a header of {length} bytes: corrupt or not a safetensors file");
        return Err(HeadError::Bad(reason));
    }
    let left = file_bytes.saturating_sub(8);
    let data_bytes = left.checked_sub(length).ok_or_else(|| {
        HeadError::Bad(format!(
            "claims a header of {length} bytes, the file has {left}: truncated or corrupt"
        ))
    })?;
    match rest.get(..length as usize) {
        Some(header) => parse_header(header, data_bytes, file_bytes).map_err(HeadError::Bad),
        None => Err(HeadError::Short(format!("the header has {length} bytes"))),
    }
}

fn parse_header(header: &[u8], data_bytes: u64, file_bytes: u64) -> Result<Contents, String> {
    let data_start = file_bytes - data_bytes;
    let Header { entries, metadata } =
        json::parse(header).map_err(|error| format!("bad safetensors header: {error}"))?;
    let own = is_own_form(&metadata)?;
    let mut tensors = Vec::new();
    for (name, entry) in entries {
        let packed = metadata.get(&*name).filter(|_| own);
        let tensor = match packed {
            Some(Text::Is(packed)) => entry.locate_packed(&name, packed, data_start, data_bytes),
            _ => entry.locate(&name, data_start, data_bytes),
        };
        tensors.push(tensor.map_err(|reason| format!("tensor {}: {reason}", quoted(&name)))?);
    }
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    check_layout(&tensors, data_start, file_bytes)?;
    let text = |(key, value)| match value {
        Text::Is(value) => Some((Cow::into_owned(key), Cow::into_owned(value))),
        Text::Other(_) => None,
    };
    Ok((tensors, metadata.into_iter().filter_map(text).collect()))
}

/// Value of the metadata's `format` in this project's own form.
pub const OWN_FORMAT: &str = "gemma4-wgpu";
/// Value of the metadata's `version` in the form that this version writes and reads.
pub const OWN_VERSION: &str = "1";

/// The metadata's description of a packed matrix, under its name: `int4 g32 1024x320`.
pub fn describe_packed(format: PackFormat, rows: usize, cols: usize) -> String {
    format!("{format} {rows}x{cols}")
}

fn parse_packed(text: &str) -> Option<(PackFormat, usize, usize)> {
    let (format, shape) = text.rsplit_once(' ')?;
    let (rows, cols) = shape.split_once('x')?;
    let format = format.parse().ok().filter(|format: &PackFormat| format.group().is_some())?;
    Some((format, rows.parse().ok()?, cols.parse().ok()?))
}

/// Whether the file has packed matrices. Errors if another version of this program wrote them in
/// another form.
fn is_own_form(metadata: &HashMap<Cow<'_, str>, Text<'_>>) -> Result<bool, String> {
    if !matches!(metadata.get("format"), Some(Text::Is(format)) if format == OWN_FORMAT) {
        return Ok(false);
    }
    match metadata.get("version") {
        Some(Text::Is(version)) if version == OWN_VERSION => Ok(true),
        Some(Text::Is(version)) => Err(format!(
            "version {} of the {OWN_FORMAT} format (known: {OWN_VERSION})",
            quoted(version)
        )),
        _ => Err(format!("the {OWN_FORMAT} format without a version")),
    }
}

/// The format allows no gap before, between or after tensors.
fn check_layout(tensors: &[StoredTensor], data_start: u64, file_bytes: u64) -> Result<(), String> {
    let mut end = data_start;
    for tensor in tensors {
        if tensor.range.start != end {
            return Err(format!(
                "tensor {}: overlaps its neighbour or leaves a gap",
                quoted(&tensor.name)
            ));
        }
        end = tensor.range.end;
    }
    match end == file_bytes {
        true => Ok(()),
        false => Err(format!("the tensors end at byte {end}, the file at {file_bytes}")),
    }
}

/// A tensor's entry in the header. Sizes are signed so that a negative one is refused by name.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<i64>,
    data_offsets: (i64, i64),
}

impl Entry<'_> {
    /// A byte matrix that the metadata declares as packed.
    fn locate_packed(
        self,
        name: &str,
        packed: &str,
        data_start: u64,
        data_bytes: u64,
    ) -> Result<StoredTensor, String> {
        let unusable =
            || format!("the metadata calls it {}, which does not fit its bytes", quoted(packed));
        let (format, rows, cols) = parse_packed(packed).ok_or_else(unusable)?;
        let dtype = Dtype::Packed(format);
        let stored = self.locate(name, data_start, data_bytes)?;
        let bytes = (dtype.bytes_of(cols)? as u64).checked_mul(rows as u64);
        match stored.dtype_name == "U8" && bytes == Some(stored.range.end - stored.range.start) {
            true => Ok(StoredTensor { dtype: Some(dtype), shape: vec![rows, cols], ..stored }),
            false => Err(unusable()),
        }
    }

    fn locate(self, name: &str, data_start: u64, data_bytes: u64) -> Result<StoredTensor, String> {
        let sizes: Result<Vec<usize>, _> =
            self.shape.iter().map(|&size| usize::try_from(size)).collect();
        let shape = sizes.map_err(|_| format!("negative size in shape {:?}", self.shape))?;
        let (begin, end) = self.data_offsets;
        let range = match (u64::try_from(begin), u64::try_from(end)) {
            (Ok(begin), Ok(end)) if begin <= end && end <= data_bytes => {
                data_start + begin..data_start + end
            }
            _ => {
                return Err(format!(
                    "bytes {begin} to {end} reach past the end of the file ({data_bytes} bytes)"
                ));
            }
        };
        let dtype = match &*self.dtype {
            "F32" => Some(Dtype::F32),
            "F16" => Some(Dtype::F16),
            "BF16" => Some(Dtype::BF16),
            _ => None,
        };
        if let Some(dtype) = dtype
            && dtype.tensor_bytes(&shape) != Some(range.end - range.start)
        {
            let bytes = range.end - range.start;
            return Err(format!("shape {shape:?} of {dtype:?} does not fill its {bytes} bytes"));
        }
        Ok(StoredTensor {
            name: name.into(),
            dtype_name: self.dtype.into_owned(),
            dtype,
            shape,
            range,
        })
    }
}

/// The header: tensors, and `__metadata__`.
struct Header<'a> {
    entries: Vec<(Cow<'a, str>, Entry<'a>)>,
    metadata: HashMap<Cow<'a, str>, Text<'a>>,
}

/// A value of the metadata.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    #[serde(borrow)]
    Is(Cow<'a, str>),
    /// Not text. The format forbids it, but it does not matter here.
    Other(IgnoredAny),
}

impl<'de> Deserialize<'de> for Header<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header<'de>, A::Error> {
        let mut entries = Vec::new();
        let mut metadata = HashMap::new();
        let mut names = HashSet::new();
        while let Some(Name(name)) = map.next_key()? {
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format_args!(
                    "tensor {} is there twice",
                    quoted(&name)
                )));
            }
            match &*name {
                "__metadata__" => metadata = map.next_value::<Option<_>>()?.unwrap_or_default(),
                _ => entries.push((name, map.next_value()?)),
            }
        }
        Ok(Header { entries, metadata })
    }
}

/// A key borrowed from the header (a bare `Cow` key would be copied).
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
