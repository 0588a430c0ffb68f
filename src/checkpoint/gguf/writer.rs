//! Writes GGUF files, version 3: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::path::Path;

use crate::checkpoint::gguf::container::{DEFAULT_ALIGNMENT, MAGIC};
use crate::checkpoint::gguf::types::type_id;
use crate::checkpoint::new_file::NewFile;
use crate::error::{Error, Result};
use crate::quant::Dtype;

const VERSION: u32 = 3;

/// A metadata value to write, in the type that llama.cpp's converters use.
#[derive(Debug, Clone, PartialEq)]
pub enum NewValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
}

/// A tensor to write.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGgufTensor {
    pub name: String,
    pub dtype: Dtype,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl NewGgufTensor {
    /// Bytes of its data, without the padding after it.
    ///
    /// Errors: packed rows, or rows that do not fill whole blocks.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = type_id(self.dtype).and_then(|_| self.dtype.tensor_bytes(&self.shape));
        bytes.ok_or_else(|| {
            Error::tensor(&self.name, format!("{} of shape {:?} for GGUF", self.dtype, self.shape))
        })
    }
}

/// Everything before the data: metadata and the tensors' directory, padded to the first tensor.
///
/// Errors: [`Error::Tensor`] as [`NewGgufTensor::bytes`].
pub fn head(metadata: &[(String, NewValue)], tensors: &[NewGgufTensor]) -> Result<Vec<u8>> {
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(&mut head, key);
        put_value(&mut head, value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        // Innermost first.
        head.extend(tensor.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        head.extend(type_id(tensor.dtype).unwrap_or(u32::MAX).to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += tensor.bytes()?.next_multiple_of(DEFAULT_ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
    Ok(head)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The number of its type, and the value's bytes.
fn put_value(out: &mut Vec<u8>, value: &NewValue) {
    const U32: u32 = 4;
    const I32: u32 = 5;
    const F32: u32 = 6;
    const BOOL: u32 = 7;
    const TEXT: u32 = 8;
    const ARRAY: u32 = 9;
    let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend([ARRAY, kind].iter().flat_map(|kind| kind.to_le_bytes()));
        out.extend((len as u64).to_le_bytes());
    };
    let mut one = |kind: u32| out.extend(kind.to_le_bytes());
    match value {
        NewValue::U32(value) => {
            one(U32);
            out.extend(value.to_le_bytes());
        }
        NewValue::F32(value) => {
            one(F32);
            out.extend(value.to_le_bytes());
        }
        NewValue::Bool(value) => {
            one(BOOL);
            out.push(*value as u8);
        }
        NewValue::Text(value) => {
            one(TEXT);
            put_text(out, value);
        }
        NewValue::I32s(values) => {
            array(out, I32, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        NewValue::F32s(values) => {
            array(out, F32, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        NewValue::Bools(values) => {
            array(out, BOOL, values.len());
            out.extend(values.iter().map(|value| *value as u8));
        }
        NewValue::Texts(values) => {
            array(out, TEXT, values.len());
            values.iter().for_each(|value| put_text(out, value));
        }
    }
}

/// Writes a GGUF file, tensor by tensor. The file appears when it is complete.
pub struct GgufWriter {
    file: NewFile,
    /// Bytes of the current tensor so far.
    written: u64,
}

impl GgufWriter {
    /// Begins a file with a [`head`] of these tensors. Errors: [`Error::Io`], [`Error::Tensor`].
    pub fn create(target: &Path, head: &[u8], tensors: &[NewGgufTensor]) -> Result<Self> {
        let mut bytes = 0;
        for tensor in tensors {
            bytes += tensor.bytes()?.next_multiple_of(DEFAULT_ALIGNMENT);
        }
        Ok(GgufWriter { file: NewFile::create(target, head, bytes)?, written: 0 })
    }

    /// Appends bytes of the current tensor.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.file.append(bytes)
    }

    /// Ends the current tensor. Errors unless it has all its bytes.
    pub fn end(&mut self, tensor: &NewGgufTensor) -> Result<()> {
        let (wanted, written) = (tensor.bytes()?, std::mem::take(&mut self.written));
        if written != wanted {
            return Err(Error::tensor(&tensor.name, format!("{written} bytes, {wanted} wanted")));
        }
        let padding = (wanted.next_multiple_of(DEFAULT_ALIGNMENT) - wanted) as usize;
        self.file.append(&[0; DEFAULT_ALIGNMENT as usize][..padding])
    }

    /// Gives the file its name. Errors if bytes are missing.
    pub fn finish(self) -> Result<()> {
        self.file.finish()
    }
}
