//! `hf:REPO` and `hf:REPO:FILE`: models in the Hugging Face cache, which `pull` and other programs fill.

pub mod cache;
pub mod select;

use std::path::{Path, PathBuf};

use self::cache::Cache;
use crate::{Error, Result};

const PREFIX: &str = "hf:";

/// `OWNER/NAME`, or `OWNER/NAME:FILE`, where the file may be a quantization tag such as `Q4_0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `OWNER/NAME`.
    pub repository: String,
    pub file: Option<String>,
}

impl Name {
    /// Errors: in words what is wanted instead.
    pub fn parse(text: &str) -> Result<Name, String> {
        let text = text.strip_prefix(PREFIX).unwrap_or(text);
        let (repository, file) = text.split_once(':').map_or((text, None), |(name, file)| (name, Some(file)));
        match repository.split_once('/') {
            Some((owner, name)) if is_plain(owner) && is_plain(name) && file != Some("") => {
                Ok(Name { repository: repository.into(), file: file.map(String::from) })
            }
            _ => Err("want OWNER/NAME or OWNER/NAME:FILE".into()),
        }
    }
}

/// Whether a name from outside is safe as one part of a path.
pub fn is_plain(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

/// The path that `--model` means: of `hf:REPO` the snapshot in the cache (or the one GGUF model in it), of
/// `hf:REPO:FILE` a file of it; any other as it is.
///
/// Errors: no such name, or a repository or file that is not in the cache.
pub fn resolve(model: &Path) -> Result<PathBuf> {
    let Some(text) = model.to_str().and_then(|text| text.strip_prefix(PREFIX)) else { return Ok(model.to_owned()) };
    let fault = |reason: String| Error::Input(format!("--model {PREFIX}{text}: {reason}"));
    let name = Name::parse(text).map_err(|_| fault("want hf:OWNER/NAME or hf:OWNER/NAME:FILE".into()))?;
    let cache = Cache::find().map_err(&fault)?;
    let missing = |what: &str| {
        let cache = cache.root().display();
        fault(format!("{what} is not in the cache {cache}; get it with: gemma4-wgpu pull {text}"))
    };
    let repository = cache.repository(&name.repository);
    let commit = repository.commit("main").map_err(&fault)?.ok_or_else(|| missing("the repository"))?;
    let snapshot = repository.snapshot(&commit);
    if !snapshot.is_dir() {
        return Err(missing("its newest revision"));
    }
    let files = cache::files_in(&snapshot)?;
    let names = || files.iter().map(String::as_str);
    let Some(file) = &name.file else {
        // In a folder of the repository, or beside projectors, it is not found by the directory alone.
        return Ok(match select::gguf_models(names()).as_slice() {
            [only] if !files.iter().any(|file| file == "config.json") => snapshot.join(only),
            _ => snapshot,
        });
    };
    if names().any(|name| name == file) {
        return Ok(snapshot.join(file));
    }
    match select::tagged(names(), file).as_slice() {
        [] => Err(missing(&format!("file {file}"))),
        [only] => Ok(snapshot.join(only)),
        several => Err(fault(format!("{file} may be any of {}: name the file", several.join(", ")))),
    }
}
