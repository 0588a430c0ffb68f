//! Checkpoints whose files cannot be mapped, such as a browser's or a server's. Headers are read on
//! opening, rows of tensors on demand.

use std::{collections::HashMap, path::Path};

use crate::checkpoint::checkpoint::{Checkpoint, Format};
use crate::checkpoint::directory::refuse_pointer;
use crate::checkpoint::gguf::{self, config::FREQUENCY_FACTORS, container::Gguf};
use crate::checkpoint::head_error::HeadError;
use crate::checkpoint::model_file::ModelFile;
use crate::checkpoint::part_name::PartName;
use crate::checkpoint::range_read::NamedFile;
use crate::checkpoint::safetensors::files::{CONFIG, INDEX};
use crate::checkpoint::safetensors::{self};
use crate::error::{Error, Result};

/// The first bytes to read of a file. They are doubled until they include the header.
const FIRST_BYTES: u64 = 1 << 20;
/// Longer headers and tokenizers are corrupt or not meant for this program.
const MOST_BYTES: u64 = 256 << 20;

/// Small files of a checkpoint, read whole.
const SIDECAR_FILES: [&str; 6] = [
    CONFIG,
    INDEX,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

impl Checkpoint {
    /// Opens the files of one model. These are a `.gguf` file or all its parts, or `.safetensors`
    /// with config.json and tokenizer files. Other files are ignored.
    ///
    /// Errors: as [`Checkpoint::open`]; files that belong to no model or to several.
    pub async fn open_ranged(mut files: Vec<NamedFile>) -> Result<Self> {
        files.retain(|file| !file.name.starts_with('.'));
        let has = |suffix: &str| files.iter().any(|file| file.name.ends_with(suffix));
        match (has(".safetensors"), has(".gguf")) {
            (true, gguf) if has(CONFIG) || !gguf => open_safetensors(files).await,
            (_, true) => open_gguf(files).await,
            _ => Err(match files.as_slice() {
                [file] => Error::checkpoint(&file.name, "neither a .safetensors nor a .gguf file"),
                _ => Error::Input("no .safetensors and no .gguf file among those given".into()),
            }),
        }
    }
}

async fn open_gguf(mut files: Vec<NamedFile>) -> Result<Checkpoint> {
    let sidecar_files = read_sidecar_files(&files).await?;
    let names = files.iter().map(|file| file.name.clone()).collect();
    let model = gguf::files::model_among(Path::new("the files given"), names)?;
    // Named like a path of a directory by then.
    let model = Path::new(model.file_name().unwrap_or_default());
    let mut parts = Vec::new();
    for path in gguf::files::part_paths(model) {
        let file = take(&mut files, &path.to_string_lossy())?;
        let mut part = with_head(file, &|head, len| Gguf::parse_head(head, len).map(drop)).await?;
        // The config depends on it, in whatever part it is.
        part.cache_small_tensor(FREQUENCY_FACTORS).await?;
        parts.push(part);
    }
    let mut checkpoint = gguf::files::assemble(model, parts)?;
    checkpoint.decide_head().await?;
    Ok(Checkpoint { sidecar_files: Some(sidecar_files), ..checkpoint })
}

async fn open_safetensors(mut files: Vec<NamedFile>) -> Result<Checkpoint> {
    let sidecar_files = read_sidecar_files(&files).await?;
    let config = sidecar_files.get(CONFIG).ok_or_else(|| {
        Error::Input(format!(
            "{CONFIG} is missing: choose it, tokenizer.json and the .safetensors files together"
        ))
    })?;
    let index_path = Path::new(INDEX);
    let index = sidecar_files
        .get(INDEX)
        .map(|bytes| safetensors::files::parse_index(index_path, bytes))
        .transpose()?;
    let names: Vec<String> = match &index {
        Some(index) => {
            let paths = safetensors::files::shard_paths(Path::new(""), index_path, index)?;
            paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
        }
        None => {
            let names = files.iter().map(|file| file.name.clone());
            names.filter(|name| name.ends_with(".safetensors")).collect()
        }
    };
    if index.is_none() && names.len() > 1 && !is_whole_set(&names) {
        return Err(Error::Input(format!("{} .safetensors files without {INDEX}", names.len())));
    }
    let mut shards = Vec::new();
    for name in names {
        let file = take(&mut files, &name)?;
        shards.push(
            with_head(file, &|head, len| safetensors::header::parse_head(head, len).map(drop))
                .await?,
        );
    }
    let mut checkpoint =
        safetensors::files::assemble(Format::HuggingFace, Path::new(CONFIG), config, shards)?;
    checkpoint.settle_formats().await?;
    checkpoint.decide_head().await?;
    if let Some(index) = index {
        index.check(index_path, &checkpoint)?;
    }
    Ok(Checkpoint { sidecar_files: Some(sidecar_files), ..checkpoint })
}

/// Whether the files are all the shards of one model.
fn is_whole_set(names: &[String]) -> bool {
    let part = names.first().and_then(|name| PartName::parse(name, "safetensors"));
    part.is_some_and(|part| {
        let all: Vec<String> = (1..=part.count).map(|number| part.sibling(number)).collect();
        all.len() == names.len() && all.iter().all(|name| names.contains(name))
    })
}

fn take(files: &mut Vec<NamedFile>, name: &str) -> Result<NamedFile> {
    let found = files.iter().position(|file| file.name == name);
    found
        .map(|index| files.swap_remove(index))
        .ok_or_else(|| Error::checkpoint(name, "missing among the files given"))
}

/// The small files.
async fn read_sidecar_files(files: &[NamedFile]) -> Result<HashMap<String, Vec<u8>>> {
    let mut read = HashMap::new();
    for file in files.iter().filter(|file| SIDECAR_FILES.contains(&file.name.as_str())) {
        let (path, len) = (Path::new(&file.name), file.bytes.len());
        if len > MOST_BYTES {
            return Err(Error::checkpoint(
                path,
                format!("has {len} bytes, more than any such file"),
            ));
        }
        let bytes = file.bytes.read_exactly(path, 0..len).await?;
        refuse_pointer(path, &bytes)?;
        read.insert(file.name.clone(), bytes);
    }
    Ok(read)
}

/// Tries to parse the first bytes of a file with this total size.
type ParseHead = dyn Fn(&[u8], u64) -> Result<(), HeadError>;

/// The file with the first bytes that `parse` needs.
async fn with_head(file: NamedFile, parse: &ParseHead) -> Result<ModelFile> {
    let NamedFile { name, bytes } = file;
    let (path, len) = (Path::new(&name), bytes.len());
    if len == 0 {
        return Err(Error::checkpoint(path, "the file is empty"));
    }
    let mut head = Vec::new();
    let mut wanted = FIRST_BYTES.min(len);
    loop {
        head.extend(bytes.read_exactly(path, head.len() as u64..wanted).await?);
        refuse_pointer(path, &head)?;
        match parse(&head, len) {
            Ok(()) => return Ok(ModelFile::ranged(&name, head, bytes)),
            Err(HeadError::Short(_)) if wanted < len.min(MOST_BYTES) => {
                wanted = (2 * wanted).min(len).min(MOST_BYTES)
            }
            Err(error) => return Err(Error::checkpoint(path, error.reason())),
        }
    }
}
