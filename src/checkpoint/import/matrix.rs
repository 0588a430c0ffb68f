//! Finds and checks the tensors of an integer matrix.

use std::{collections::BTreeMap, ops::Range};

use crate::checkpoint::safetensors::header::StoredTensor;
use crate::error::quoted;
use crate::quant::grouped::{Grouped, Number, Table};

/// A tensor, and the number of the file that it is in.
pub(in super::super) struct Part {
    pub file: usize,
    pub tensor: StoredTensor,
}

/// Tensors of one matrix by the name's part after the module: `weight`, `scales`…
pub(in super::super) type Parts = BTreeMap<&'static str, Part>;

/// A file and the bytes of a tensor in it.
pub(in super::super) type FileRange = (usize, Range<u64>);

/// A matrix and the ranges of its tensors.
pub(in super::super) struct Imported {
    pub grouped: Grouped,
    pub integers: FileRange,
    pub scales: FileRange,
    pub zeros: Option<FileRange>,
}

/// A required part, which must have one of these dtypes and this number of dimensions.
pub(super) fn part<'a>(
    parts: &'a Parts,
    name: &str,
    dtypes: &[&str],
    dimensions: usize,
) -> Result<&'a Part, String> {
    let part = parts.get(name).ok_or_else(|| format!("{name} is missing"))?;
    let tensor = &part.tensor;
    if !dtypes.contains(&tensor.dtype_name.as_str()) {
        return Err(format!(
            "{name} has dtype {}, not {}",
            quoted(&tensor.dtype_name),
            dtypes.join(" or ")
        ));
    }
    if tensor.shape.len() != dimensions {
        return Err(format!("{name} has shape {:?}, not {dimensions} dimensions", tensor.shape));
    }
    Ok(part)
}

/// A part of floats with a value for each row and group.
pub(super) fn table(part: &Part, shape: [usize; 2], transposed: bool) -> Result<Table, String> {
    let tensor = &part.tensor;
    let wanted = if transposed { [shape[1], shape[0]] } else { shape };
    if tensor.shape != wanted {
        return Err(format!("{} has shape {:?}, not {wanted:?}", tensor.name, tensor.shape));
    }
    let number = match tensor.dtype_name.as_str() {
        "F32" => Number::F32,
        "F16" => Number::F16,
        "BF16" => Number::BF16,
        "I8" => Number::I8,
        other => return Err(format!("{} has dtype {}", tensor.name, quoted(other))),
    };
    Ok(Table { number, transposed })
}

pub(super) const FLOATS: &[&str] = &["BF16", "F16", "F32"];

impl Part {
    pub(super) fn place(&self) -> FileRange {
        (self.file, self.tensor.range.clone())
    }
}
