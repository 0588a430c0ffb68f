//! Opens Hugging Face checkpoints: config.json with one safetensors file, or with shards and their
//! index.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::checkpoint::{Checkpoint, Format};
use crate::checkpoint::directory::file_names;
use crate::checkpoint::import::Scheme;
use crate::checkpoint::import::matrix::{Part, Parts};
use crate::checkpoint::model_file::{ModelFile, read_optional};
use crate::checkpoint::part_name::PartName;
use crate::checkpoint::safetensors::header;
use crate::checkpoint::tensor_index::{insert, insert_grouped};
use crate::checkpoint::{decide, expert_names, experts, names};
use crate::error::{Error, Result, quoted};
use crate::json::{self, Fields};
use crate::model::config::{Architecture, ModelConfig};
use crate::model::source::TensorInfo;

pub(in crate::checkpoint) const CONFIG: &str = "config.json";
const EXTENSION: &str = "safetensors";
const SINGLE: &str = "model.safetensors";
pub(in crate::checkpoint) const INDEX: &str = "model.safetensors.index.json";

/// The safetensors files of a model.
pub(in crate::checkpoint) enum Weights {
    File(PathBuf),
    Index(PathBuf),
    /// All shards, without an index.
    Shards(Vec<PathBuf>),
}

/// `model.safetensors.index.json`
#[derive(Deserialize)]
pub(in crate::checkpoint) struct Index {
    /// Tensor name to file name.
    weight_map: BTreeMap<String, String>,
}

/// The weights of a directory with a config.json. `None` if there are none.
pub(in crate::checkpoint) fn weights_in(directory: &Path) -> Result<Option<Weights>> {
    let (single, index) = (directory.join(SINGLE), directory.join(INDEX));
    let weights = match (single.is_file(), index.is_file()) {
        (true, _) => Some(Weights::File(single)),
        (false, true) => Some(Weights::Index(index)),
        (false, false) => shards_without_index(directory, &index)?.map(Weights::Shards),
    };
    match weights.is_some() && !directory.join(CONFIG).is_file() {
        true => Err(Error::checkpoint(directory, "has safetensors but no config.json")),
        false => Ok(weights),
    }
}

/// The shards of a directory without an index. `None` if it has no shards either.
///
/// Errors: some shards of the set are missing.
fn shards_without_index(directory: &Path, index: &Path) -> Result<Option<Vec<PathBuf>>> {
    let names = file_names(directory)?;
    let part = names.iter().find_map(|name| PartName::parse(name, EXTENSION));
    part.map(|part| shards_of(&part, directory, index, &names)).transpose()
}

/// The shards of the set of `part`.
///
/// Errors: some are not among the directory's `names`.
fn shards_of(
    part: &PartName,
    directory: &Path,
    index: &Path,
    names: &[String],
) -> Result<Vec<PathBuf>> {
    let all: Vec<String> = (1..=part.count).map(|number| part.sibling(number)).collect();
    match all.iter().find(|name| !names.contains(name)) {
        Some(lost) => {
            let reason = format!("{lost} is missing, and so is {}", index.display());
            Err(Error::checkpoint(directory, reason))
        }
        None => Ok(all.iter().map(|name| directory.join(name)).collect()),
    }
}

/// Opens one safetensors file. For a shard it opens the whole set, with or without an index.
pub(in crate::checkpoint) fn open_file(path: &Path) -> Result<Checkpoint> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let index_path = directory.join(INDEX);
    if let (Some(index), Some(name)) = (read_index(&index_path)?, path.file_name())
        && index.weight_map.values().any(|shard| name == shard.as_str())
    {
        return open(directory, Weights::Index(index_path));
    }
    let part = path.file_name().and_then(|name| name.to_str());
    match part.and_then(|name| PartName::parse(name, EXTENSION)) {
        Some(part) => {
            let names = file_names(if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                directory
            })?;
            open(directory, Weights::Shards(shards_of(&part, directory, &index_path, &names)?))
        }
        None => open(directory, Weights::File(path.into())),
    }
}

/// Opens the weights with the directory's config.json.
pub(in crate::checkpoint) fn open(directory: &Path, weights: Weights) -> Result<Checkpoint> {
    let config_path = directory.join(CONFIG);
    let config = read_optional(&config_path)?.ok_or_else(|| {
        Error::checkpoint(
            &config_path,
            "missing: a safetensors file needs the model's config.json beside it",
        )
    })?;
    let (paths, index) = match weights {
        Weights::File(path) => (vec![path], None),
        Weights::Shards(paths) => (paths, None),
        Weights::Index(path) => {
            let index = read_index(&path)?.ok_or_else(|| Error::checkpoint(&path, "missing"))?;
            (shard_paths(directory, &path, &index)?, Some((path, index)))
        }
    };
    let files = paths.iter().map(|path| ModelFile::open(path)).collect::<Result<Vec<_>>>()?;
    let checkpoint = assemble(Format::HuggingFace, &config_path, &config, files)?;
    match index {
        Some((path, index)) => index.check(&path, &checkpoint).map(|()| checkpoint),
        None => Ok(checkpoint),
    }
}

impl Index {
    /// Errors unless the checkpoint has all tensors that the index names.
    pub(in crate::checkpoint) fn check(&self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let lost = self.weight_map.iter().find(|(name, _)| {
            let whole = names::from_hf(name).map(expert_names::whole_name);
            whole.is_some_and(|name| !checkpoint.tensors.contains_key(&name))
        });
        match lost {
            Some((name, shard)) => {
                Err(Error::checkpoint(path, format!("tensor {name} is not in {}", quoted(shard))))
            }
            None => Ok(()),
        }
    }
}

/// The checkpoint of a config.json and its safetensors files.
pub(in crate::checkpoint) fn assemble(
    format: Format,
    config_path: &Path,
    config: &[u8],
    files: Vec<ModelFile>,
) -> Result<Checkpoint> {
    let text =
        std::str::from_utf8(config).map_err(|_| Error::checkpoint(config_path, "not UTF-8"))?;
    let mut config = ModelConfig::from_hf_json(text)?;
    let (mut parsed, mut metadata) = (Vec::new(), HashMap::new());
    for file in &files {
        let broken = |reason: String| Error::checkpoint(&file.path, reason);
        let (tensors, texts) =
            header::parse_head(file.bytes(), file.len()).map_err(|error| broken(error.reason()))?;
        parsed.push(tensors);
        collect_metadata(&mut metadata, texts).map_err(broken)?;
    }
    let value: Value =
        json::parse(text.as_bytes()).map_err(|error| Error::checkpoint(config_path, error))?;
    let scheme = Scheme::of(&value, &metadata)?;
    let (mut tensors, mut modules) = (HashMap::new(), BTreeMap::<String, Parts>::new());
    let mut skipped = Vec::new();
    for (number, tensor) in
        parsed.into_iter().enumerate().flat_map(|(n, list)| list.into_iter().map(move |t| (n, t)))
    {
        if let Some((module, part)) = scheme.as_ref().and_then(|scheme| scheme.part_of(&tensor)) {
            let mut tensor = tensor.clone();
            let weight = format!("{module}.weight");
            expert_names::flatten(names::from_hf(&weight).unwrap_or_default(), &mut tensor.shape);
            let parts = modules.entry(module.to_owned()).or_default();
            if parts.insert(part, Part { file: number, tensor: tensor.clone() }).is_some() {
                return Err(Error::tensor(tensor.name, "is in the checkpoint twice"));
            }
            continue;
        }
        let Some(name) = names::from_hf(&tensor.name) else {
            decide::refuse_needed(&tensor.name)?;
            skipped.push(tensor.name);
            continue;
        };
        let Some(dtype) = tensor.dtype else {
            let reason = format!(
                "dtype {} is not supported (BF16, F16 and F32 are)",
                quoted(&tensor.dtype_name)
            );
            return Err(Error::tensor(tensor.name, reason));
        };
        let mut shape = tensor.shape;
        expert_names::flatten(name, &mut shape);
        let info = TensorInfo { dtype, shape };
        insert(&mut tensors, (name, &tensor.name), info, (number, tensor.range))?;
    }
    for (module, parts) in &modules {
        let Some(scheme) = &scheme else { break };
        let weight = format!("{module}.weight");
        let name = names::from_hf(&weight).unwrap_or(&weight);
        insert_grouped(&mut tensors, &files, (name, &weight), scheme.matrix(module, parts)?)?;
    }
    let root = Fields::of(&value, CONFIG)?;
    let said = root.object("text_config")?.unwrap_or(root);
    experts::join(&config, &mut tensors)?;
    decide::by_files(&mut config, &tensors, &|key| said.has(key))?;
    let name = match config.architecture {
        Architecture::Gemma3 => "Gemma 3",
        Architecture::Gemma4 => "Gemma 4",
    };
    let by = scheme.map_or(String::new(), |scheme| format!(" by {}", scheme.name()));
    let description = format!("{name}, {} layers, safetensors{by}", config.layers.len());
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

/// Adds a file's metadata to that of earlier files. torchao lists the tensors of each file.
fn collect_metadata(
    all: &mut HashMap<String, String>,
    texts: HashMap<String, String>,
) -> Result<(), String> {
    const LIST: &str = "tensor_names";
    let list = |text: Option<&String>| {
        text.map_or(Ok(Vec::new()), |text| json::parse::<Vec<String>>(text.as_bytes()))
    };
    if texts.contains_key(LIST) {
        let names = [list(all.get(LIST))?, list(texts.get(LIST))?].concat();
        all.extend(texts);
        all.insert(LIST.into(), Value::from(names).to_string());
    }
    Ok(())
}

fn read_index(path: &Path) -> Result<Option<Index>> {
    read_optional(path)?.map(|bytes| parse_index(path, &bytes)).transpose()
}

pub(in crate::checkpoint) fn parse_index(path: &Path, bytes: &[u8]) -> Result<Index> {
    json::parse(bytes).map_err(|error| Error::checkpoint(path, error))
}

/// The names of the files that the bytes of an index name.
#[cfg(feature = "cli")]
pub(crate) fn shard_names(index_path: &Path, bytes: &[u8]) -> Result<Vec<String>> {
    let index = parse_index(index_path, bytes)?;
    let paths = shard_paths(Path::new(""), index_path, &index)?;
    Ok(paths.iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

/// The files that an index names, each once. They must be directly in the directory.
pub(in crate::checkpoint) fn shard_paths(
    directory: &Path,
    index_path: &Path,
    index: &Index,
) -> Result<Vec<PathBuf>> {
    let mut shards: Vec<&String> = index.weight_map.values().collect();
    shards.sort();
    shards.dedup();
    if shards.is_empty() {
        return Err(Error::checkpoint(index_path, "names no shard"));
    }
    let path = |shard: &String| match Path::new(shard).file_name() {
        Some(name) if name == shard.as_str() && !shard.contains(['/', '\\']) => {
            Ok(directory.join(shard))
        }
        _ => Err(Error::checkpoint(
            index_path,
            format!("shard {} is not a plain file name", quoted(shard)),
        )),
    };
    shards.into_iter().map(path).collect()
}
