//! `hf:OWNER/NAME[@REVISION][:FILE]`: models in the Hugging Face cache, which `pull` and other
//! programs fill.

pub mod cache;
pub mod select;

use std::fmt;
use std::path::{Path, PathBuf};

use self::cache::{Cache, Repository, is_plain};
use crate::{Error, Result};

const PREFIX: &str = "hf:";
const FORM: &str = "OWNER/NAME, OWNER/NAME:FILE or OWNER/NAME@REVISION:FILE";
/// The branch of names without a revision.
pub const MAIN: &str = "main";

/// `OWNER/NAME[@REVISION][:FILE]`, where the file may be a quantization tag such as `Q4_0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: Option<String>,
    pub file: Option<String>,
}

impl Name {
    /// Errors: text that says which form is wanted.
    pub fn parse(text: &str) -> Result<Name, String> {
        let text = text.strip_prefix(PREFIX).unwrap_or(text);
        // In git, names of branches and tags have no colons, but may have slashes.
        let (at, file) =
            text.split_once(':').map_or((text, None), |(name, file)| (name, Some(file)));
        let (repository, revision) =
            at.split_once('@').map_or((at, None), |(name, at)| (name, Some(at)));
        match repository.split_once('/') {
            Some((owner, name)) if is_plain(owner) && is_plain(name) && file != Some("") => {}
            _ => return Err(format!("want {FORM}")),
        }
        if let Some(revision) = revision.filter(|revision| !cache::is_inside(revision)) {
            return Err(format!("want a branch, a tag or a commit after @, not {revision:?}"));
        }
        let [revision, file] = [revision, file].map(|part| part.map(String::from));
        Ok(Name { repository: repository.into(), revision, file })
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

/// The form that [`Name::parse`] reads.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, ":{file}"))
    }
}

/// The path of a model's name. `hf:REPO` is the snapshot in the cache, or the one GGUF model in it.
/// `hf:REPO:FILE` is a file of the snapshot. Any other name is a path already. The snapshot is that
/// of the branch main, or of `hf:REPO@REVISION`.
///
/// Errors: no such name, or a repository, revision or file that is not in the cache.
pub fn resolve(model: &Path) -> Result<PathBuf> {
    let Some(text) = model.to_str().and_then(|text| text.strip_prefix(PREFIX)) else {
        return Ok(model.to_owned());
    };
    let fault = |reason: String| Error::Input(format!("{PREFIX}{text}: {reason}"));
    let name = Name::parse(text)
        .map_err(|reason| fault(reason.replace(FORM, &format!("{PREFIX}{FORM}"))))?;
    let cache = Cache::find().map_err(&fault)?;
    let missing = |what: &str| {
        let cache = cache.root().display();
        fault(format!("{what} is not in the cache {cache}; get it with: gemma4-wgpu pull {text}"))
    };
    let repository = cache.repository(&name.repository);
    let commit = repository.commit(name.revision()).map_err(&fault)?;
    let Some(snapshot) =
        commit.map(|commit| repository.snapshot(&commit)).filter(|path| path.is_dir())
    else {
        return Err(missing(&what_is_missing(&name, &repository)));
    };
    let files = cache::files_in(&snapshot)?;
    let names = || files.iter().map(String::as_str);
    let Some(file) = &name.file else {
        // In a folder of the repository, or beside projectors, the snapshot's directory does not
        // suffice to find it.
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
        several => {
            Err(fault(format!("{file} may be any of {}: name the file", several.join(", "))))
        }
    }
}

/// The error text for a revision without a snapshot, or for a missing repository. It lists the
/// revisions of the cache.
fn what_is_missing(name: &Name, repository: &Repository) -> String {
    const MOST: usize = 10;
    let there = repository.revisions();
    if there.is_empty() {
        return "the repository".into();
    }
    let named = |revision: &String| {
        format!("{PREFIX}{}", Name { revision: Some(revision.clone()), ..name.clone() })
    };
    let shown: Vec<String> = there.iter().take(MOST).map(named).collect();
    let more = if there.len() > MOST { " and others" } else { "" };
    format!("revision {} (there is {}{more})", name.revision(), shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_revisions_and_files() {
        for (text, repository, revision, file) in [
            ("o/n", "o/n", None, None),
            ("hf:o/n:Q4_0", "o/n", None, Some("Q4_0")),
            ("o/n@v1.0", "o/n", Some("v1.0"), None),
            ("o/n@refs/pr/3:sub/a@b.gguf", "o/n", Some("refs/pr/3"), Some("sub/a@b.gguf")),
            ("o/n:a@b", "o/n", None, Some("a@b")),
            ("o/n@a@b", "o/n", Some("a@b"), None),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!(
                (name.repository.as_str(), name.revision.as_deref(), name.file.as_deref()),
                { (repository, revision, file) }
            );
            assert_eq!(name.to_string(), text.trim_start_matches(PREFIX));
        }
        for text in [
            "",
            "o",
            "o/n:",
            "@main",
            "o@v/n",
            "o/n@",
            "o/n@:Q4_0",
            "o/n@../x",
            "o/n@/x",
            "o/n@a//",
        ] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }
}
