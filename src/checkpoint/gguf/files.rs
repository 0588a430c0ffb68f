//! Opens GGUF checkpoints: one file, or all parts of a split one.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::checkpoint::checkpoint::{Checkpoint, Format};
use crate::checkpoint::directory::file_names;
use crate::checkpoint::gguf::{config::FREQUENCY_FACTORS, container::Gguf, types::type_name};
use crate::checkpoint::model_file::ModelFile;
use crate::checkpoint::part_name::PartName;
use crate::checkpoint::tensor_index::insert;
use crate::checkpoint::{decide, expert_names, experts, names};
use crate::error::{Error, Result};
use crate::model::config::{Architecture, ModelConfig};
use crate::model::source::TensorInfo;

const EXTENSION: &str = "gguf";
/// Bytes of the largest tensor that is cached.
const MAX_CACHED_BYTES: u64 = 1 << 20;

impl ModelFile {
    pub(in crate::checkpoint) fn gguf(&self) -> Result<Gguf<'_>> {
        let parsed = Gguf::parse_head(self.bytes(), self.len());
        let parsed = parsed.map_err(|error| Error::checkpoint(&self.path, error.reason()))?;
        Ok(parsed.with_cached(self.cached_tensors()))
    }

    /// Reads a small tensor of a file that is read by ranges, so that [`Gguf::data`] has its bytes.
    /// Does nothing if the file's beginning includes the tensor.
    pub(in crate::checkpoint) async fn cache_small_tensor(&mut self, name: &str) -> Result<()> {
        let range = self.gguf()?.tensor(name).map(|tensor| tensor.range.clone());
        let is_missing = |range: &Range<u64>| range.end > self.bytes().len() as u64;
        let Some(range) =
            range.filter(|range| is_missing(range) && range.end - range.start <= MAX_CACHED_BYTES)
        else {
            return Ok(());
        };
        let data = self.read(range, false).await?.into_owned();
        self.cache_tensor(name, data);
        Ok(())
    }
}

/// Opens the file. If its name says `-00002-of-00003.gguf`, the other parts beside it belong to it.
pub(in crate::checkpoint) fn open(path: &Path) -> Result<Checkpoint> {
    let paths = part_paths(path);
    assemble(path, paths.iter().map(|part| ModelFile::open(part)).collect::<Result<_>>()?)
}

/// The checkpoint of a model's parts, given in order.
pub(in crate::checkpoint) fn assemble(path: &Path, files: Vec<ModelFile>) -> Result<Checkpoint> {
    let parts = files.iter().map(ModelFile::gguf).collect::<Result<Vec<_>>>()?;
    for (index, (part, file)) in parts.iter().zip(&files).enumerate() {
        check_part(part, index, parts.len())
            .map_err(|reason| Error::checkpoint(&file.path, reason))?;
    }
    check_tensor_count(&parts).map_err(|reason| Error::checkpoint(path, reason))?;
    let mut config = ModelConfig::from_gguf(&parts)?;
    let (mut tensors, mut skipped) = (HashMap::new(), Vec::new());
    for (index, part) in parts.iter().enumerate() {
        for tensor in part.tensors() {
            let Some(name) = names::from_gguf(tensor.name) else {
                decide::refuse_needed(tensor.name)?;
                skipped.extend((tensor.name != FREQUENCY_FACTORS).then(|| tensor.name.to_owned()));
                continue;
            };
            let Some(dtype) = tensor.dtype else {
                let reason = format!(
                    "type {} is not supported (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, \
                     Q5_K, Q6_K, IQ4_NL and IQ4_XS are)",
                    type_name(tensor.type_id)
                );
                return Err(Error::tensor(tensor.name, reason));
            };
            let mut shape = tensor.shape.clone();
            expert_names::flatten(&name, &mut shape);
            let info = TensorInfo { dtype, shape };
            insert(&mut tensors, (&name, tensor.name), info, (index, tensor.range.clone()))?;
        }
    }
    experts::join(&config, &mut tensors)?;
    decide::by_files(&mut config, &tensors, &|_| true)?;
    let description = description(&parts, &config);
    drop(parts);
    let format = Format::Gguf;
    Ok(Checkpoint {
        config,
        description,
        format,
        files,
        tensors,
        copy_reads: false,
        sidecar_files: None,
        skipped,
    })
}

/// The GGUF model of a directory. Projectors for other modalities do not count.
pub(in crate::checkpoint) fn model_in(directory: &Path) -> Result<PathBuf> {
    model_among(directory, file_names(directory)?)
}

/// The GGUF model among the files of a directory, or the first part of it.
pub(in crate::checkpoint) fn model_among(
    directory: &Path,
    mut names: Vec<String>,
) -> Result<PathBuf> {
    let not_read = names.iter().filter(|name| is_other_form(name)).min().cloned();
    names.retain(|name| {
        let later_part = PartName::parse(name, EXTENSION).is_some_and(|part| part.number != 1);
        name.ends_with(".gguf") && !name.starts_with("mmproj") && !later_part
    });
    names.sort();
    match names.as_slice() {
        [name] => Ok(directory.join(name)),
        [] => {
            let mut reason =
                "holds neither config.json with safetensors nor a .gguf file".to_owned();
            if let Some(name) = not_read {
                reason +=
                    &format!("; {name} is not read: model.safetensors (or its shards) is needed");
            }
            Err(Error::checkpoint(directory, reason))
        }
        [first, second, ..] => {
            let reason = format!("holds several GGUF models ({first}, {second}…): name the file");
            Err(Error::checkpoint(directory, reason))
        }
    }
}

/// Whether a file holds weights in an unsupported form or under an unsupported name.
fn is_other_form(name: &str) -> bool {
    let is_torch = [".bin", ".pt", ".pth"].iter().any(|ending| name.ends_with(ending));
    let is_model =
        ["pytorch_model", "consolidated", "model"].iter().any(|start| name.starts_with(start));
    (is_torch && is_model) || name.ends_with(".safetensors")
}

/// All parts of the set of `path`, in order. A name that is not a part's gives the path alone.
pub(in crate::checkpoint) fn part_paths(path: &Path) -> Vec<PathBuf> {
    match path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| PartName::parse(name, EXTENSION))
    {
        None => vec![path.into()],
        Some(part) => {
            (1..=part.count).map(|number| path.with_file_name(part.sibling(number))).collect()
        }
    }
}

/// Errors unless the file's metadata says that it is part `index` of `count`.
fn check_part(part: &Gguf, index: usize, count: usize) -> Result<(), String> {
    let stored_count = part.unsigned("split.count")?.filter(|count| *count > 0).unwrap_or(1);
    let stored_index = part.unsigned("split.no")?.unwrap_or(0);
    match (stored_index, stored_count) == (index as u64, count as u64) {
        true => Ok(()),
        false => {
            let number = stored_index.saturating_add(1);
            Err(format!(
                "is part {number} of {stored_count} but is not named \
                 -{number:05}-of-{stored_count:05}.gguf"
            ))
        }
    }
}

/// Errors unless the parts hold the number of tensors that the first part states.
fn check_tensor_count(parts: &[Gguf]) -> Result<(), String> {
    let stored =
        parts.first().map(|part| part.unsigned("split.tensors.count")).transpose()?.flatten();
    let found: usize = parts.iter().map(|part| part.tensors().len()).sum();
    match stored {
        Some(stored) if parts.len() > 1 && stored != found as u64 => {
            Err(format!("the parts hold {found} tensors, the first says {stored}"))
        }
        _ => Ok(()),
    }
}

fn description(parts: &[Gguf], config: &ModelConfig) -> String {
    let name = parts.first().and_then(|part| part.get("general.name")?.text());
    // Text from the file, without control characters that could move a terminal's cursor.
    let name: String =
        name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(60).collect();
    match (name.trim(), config.architecture) {
        ("", Architecture::Gemma3) => "Gemma 3, GGUF".into(),
        ("", Architecture::Gemma4) => "Gemma 4, GGUF".into(),
        (name, _) => format!("{name}, GGUF"),
    }
}
