//! `hf:REPO` and `hf:REPO:FILE`: models that other programs have downloaded, in the Hugging Face cache.

use std::{
    env, fs,
    path::{Component, Path, PathBuf},
};

use crate::{Error, Result};

const PREFIX: &str = "hf:";

/// The path that `--model` means: of `hf:REPO` the snapshot in the cache, of `hf:REPO:FILE` a file of it; any other as
/// it is.
///
/// Errors: no such name, or a repository or file that is not in the cache.
pub fn resolve(model: &Path) -> Result<PathBuf> {
    let Some(name) = model.to_str().and_then(|text| text.strip_prefix(PREFIX)) else { return Ok(model.to_owned()) };
    let fault = |reason: String| Error::Input(format!("--model {PREFIX}{name}: {reason}"));
    let (repository, file) = name.split_once(':').map_or((name, None), |(name, file)| (name, Some(file)));
    let is_plain = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
    };
    let folder = match repository.split_once('/') {
        Some((owner, name)) if is_plain(owner) && is_plain(name) => format!("models--{owner}--{name}"),
        _ => return Err(fault("want hf:OWNER/NAME or hf:OWNER/NAME:FILE".into())),
    };
    let cache = cache().ok_or_else(|| fault("no home directory: set HF_HOME".into()))?;
    let missing = |what: &str| {
        fault(format!("{what} is not in the cache {}; get it with: hf download {repository}", cache.display()))
    };
    let folder = cache.join(folder);
    let revision = fs::read_to_string(folder.join("refs/main")).map_err(|_| missing("the repository"))?;
    let revision = revision.trim();
    if !is_plain(revision) {
        return Err(fault(format!("{} names no revision", folder.join("refs/main").display())));
    }
    let snapshot = folder.join("snapshots").join(revision);
    if !snapshot.is_dir() {
        return Err(missing("its newest revision"));
    }
    let Some(file) = file else { return Ok(snapshot) };
    let inside = !file.is_empty() && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    let path = snapshot.join(file);
    match inside && path.is_file() {
        true => Ok(path),
        false => Err(missing(&format!("file {file}"))),
    }
}

/// Where Hugging Face's programs keep what they download: HF_HUB_CACHE, HF_HOME/hub, or the default.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HF_HOME").or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")));
    let default = || env::home_dir().map(|home| home.join(".cache/huggingface"));
    set("HF_HUB_CACHE").or_else(|| home().or_else(default).map(|home| home.join("hub")))
}
