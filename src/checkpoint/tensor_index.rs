//! Tensors of a checkpoint by name, with the location and form of their bytes.

use std::collections::HashMap;

use crate::checkpoint::import::matrix::{FileRange, Imported};
use crate::checkpoint::model_file::{ModelFile, slice};
use crate::error::{Error, Result, quoted};
use crate::model::source::TensorInfo;
use crate::quant::{Dtype, PackFormat, grouped::GroupedBytes};

/// A tensor and the form of its bytes.
pub(super) struct Entry {
    pub(super) info: TensorInfo,
    pub(super) content: Content,
    /// Its name in the file.
    pub(super) own_name: String,
}

pub(super) enum Content {
    /// A range of a file, unchanged.
    Stored(FileRange),
    /// Integers and their scales in separate tensors, which become packed rows.
    Grouped(Box<Imported>, PackFormat),
    /// Blocks of `block` rows of each part in turn, all of one type.
    Joined { parts: Vec<Entry>, block: usize },
}

/// Tensors by their canonical names.
pub(super) type TensorIndex = HashMap<String, Entry>;

/// Adds a tensor under its canonical name. Its name in the file is `own_name`. Errors if the name
/// exists already.
pub(super) fn insert(
    tensors: &mut TensorIndex,
    (name, own_name): (&str, &str),
    info: TensorInfo,
    place: FileRange,
) -> Result<()> {
    let own_name = own_name.to_owned();
    insert_entry(tensors, name, Entry { info, content: Content::Stored(place), own_name })
}

/// Adds a matrix of grouped integers. Errors if the name exists already, or if its parts do not fit
/// together.
pub(super) fn insert_grouped(
    tensors: &mut TensorIndex,
    files: &[ModelFile],
    (name, own_name): (&str, &str),
    imported: Imported,
) -> Result<()> {
    let grouped = imported.grouped;
    let format = match files.iter().any(ModelFile::is_ranged) {
        // A placeholder until `Checkpoint::settle_formats`.
        true => PackFormat::Int { bits: 8, group: 32, offset: true },
        false => {
            let bytes = grouped_bytes(files, &imported)
                .ok_or_else(|| Error::tensor(name, "reaches past its file"))?;
            grouped.check(bytes).map_err(|reason| Error::tensor(name, reason))?;
            grouped.format(bytes)
        }
    };
    let info = TensorInfo { dtype: Dtype::Packed(format), shape: vec![grouped.rows, grouped.cols] };
    let (content, own_name) = (Content::Grouped(Box::new(imported), format), own_name.to_owned());
    insert_entry(tensors, name, Entry { info, content, own_name })
}

fn insert_entry(tensors: &mut TensorIndex, name: &str, entry: Entry) -> Result<()> {
    let (own_name, shape) = (entry.own_name.clone(), entry.info.shape.clone());
    match tensors.insert(name.into(), entry) {
        None => Ok(()),
        Some(first) if first.own_name == own_name => {
            Err(Error::tensor(name, "is in the checkpoint twice"))
        }
        Some(first) => {
            let (first, other) = (quoted_shape(&first), format!("{} {shape:?}", quoted(&own_name)));
            Err(Error::tensor(
                name,
                format!("is in the checkpoint twice, as {first} and as {other}"),
            ))
        }
    }
}

fn quoted_shape(entry: &Entry) -> String {
    format!("{} {:?}", quoted(&entry.own_name), entry.info.shape)
}

fn bytes_at<'a>(files: &'a [ModelFile], (file, range): &FileRange) -> Option<&'a [u8]> {
    slice(files.get(*file)?.bytes(), range)
}

pub(super) fn grouped_bytes<'a>(
    files: &'a [ModelFile],
    imported: &Imported,
) -> Option<GroupedBytes<'a>> {
    Some(GroupedBytes {
        integers: bytes_at(files, &imported.integers)?,
        scales: bytes_at(files, &imported.scales)?,
        zeros: match &imported.zeros {
            Some(place) => bytes_at(files, place)?,
            None => &[],
        },
    })
}
