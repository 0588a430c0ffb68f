//! Resumes interrupted jobs with a journal of finished files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::safetensors::header::OWN_VERSION;
use crate::error::{Error, Result};
use crate::quantize::job::{Job, Kinds};
use crate::quantize::shard::Target;

/// The journal, until the checkpoint is complete. Its directory has no config.json, and therefore
/// does not load.
const JOURNAL: &str = ".gemma4-wgpu-quantize.json";

#[derive(Serialize, Deserialize)]
struct Contents {
    /// A digest of the source, recipe, backend and format, which must be the same to resume.
    fingerprint: String,
    files: Vec<Finished>,
}

#[derive(Serialize, Deserialize)]
struct Finished {
    name: String,
    bytes: u64,
    kinds: Kinds,
}

pub struct Journal {
    output: PathBuf,
    contents: Contents,
}

impl Journal {
    /// Creates the output directory, or takes over an interrupted job's directory.
    ///
    /// Errors: the directory holds something else, or another job's work.
    pub fn begin(job: &Job<'_>, shards: &[Vec<Target>]) -> Result<Journal> {
        let output = job.output;
        let io = |source| Error::Io { path: output.to_owned(), source };
        let fingerprint = fingerprint(job, shards)?;
        fs::create_dir_all(output).map_err(io)?;
        let earlier = match fs::read(output.join(JOURNAL)) {
            Ok(bytes) => serde_json::from_slice::<Contents>(&bytes).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return match fs::read_dir(output).map_err(io)?.next() {
                    Some(_) => Err(Error::Input(format!("{} is not empty", output.display()))),
                    None => {
                        let contents = Contents { fingerprint, files: Vec::new() };
                        Journal { output: output.to_owned(), contents }.save()
                    }
                };
            }
            Err(source) => return Err(Error::Io { path: output.join(JOURNAL), source }),
        };
        let Some(mut contents) = earlier.filter(|contents| contents.fingerprint == fingerprint)
        else {
            let output = output.display();
            return Err(Error::Input(format!(
                "{output} is not empty: it holds the unfinished work of another model, recipe or \
                 backend; remove it to start anew"
            )));
        };
        contents.files.retain(|file| {
            fs::metadata(output.join(&file.name))
                .is_ok_and(|found| found.is_file() && found.len() == file.bytes)
        });
        let journal = Journal { output: output.to_owned(), contents };
        journal.remove_leftovers().map_err(io)?;
        journal.save()
    }

    /// Removes unfinished files.
    fn remove_leftovers(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.output)? {
            let entry = entry?;
            let name = entry.file_name();
            let kept = name == JOURNAL
                || self.contents.files.iter().any(|file| name == file.name.as_str());
            if !kept && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Files that are finished.
    pub fn files(&self) -> usize {
        self.contents.files.len()
    }

    /// The results for the matrices of a file, if it is finished.
    pub fn finished(&self, name: &str) -> Option<&Kinds> {
        self.contents.files.iter().find(|file| file.name == name).map(|file| &file.kinds)
    }

    /// Notes a finished file.
    pub fn finish(&mut self, name: &str, kinds: &Kinds) -> Result<()> {
        let path = self.output.join(name);
        let bytes = fs::metadata(&path).map_err(|source| Error::Io { path, source })?.len();
        self.contents.files.push(Finished { name: name.to_owned(), bytes, kinds: kinds.clone() });
        self.write()
    }

    fn save(self) -> Result<Journal> {
        self.write().map(|()| self)
    }

    /// Replaces the journal atomically.
    fn write(&self) -> Result<()> {
        let (path, temporary) =
            (self.output.join(JOURNAL), self.output.join(format!("{JOURNAL}.tmp")));
        let written = serde_json::to_vec(&self.contents)
            .map_err(std::io::Error::other)
            .and_then(|text| fs::write(&temporary, text))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| Error::Io { path, source })
    }

    /// Removes the journal of a complete checkpoint.
    pub fn end(&self) -> Result<()> {
        let path = self.output.join(JOURNAL);
        fs::remove_file(&path).map_err(|source| Error::Io { path, source })
    }
}

fn fingerprint(job: &Job<'_>, shards: &[Vec<Target>]) -> Result<String> {
    let mut text =
        format!("{OWN_VERSION}\n{}\n{}\n", env!("CARGO_PKG_VERSION"), job.recipe.to_json());
    for Target { tensor, spec } in shards.iter().flatten() {
        text += &format!("{} {:?} {spec:?}\n", tensor.name, tensor.info);
    }
    text += &format!("{:?}\n", shards.iter().map(Vec::len).collect::<Vec<_>>());
    // Part of the digest: among equally good scales a device may choose another one.
    if shards.iter().flatten().any(|target| target.searching_gpu(job).is_some()) {
        text += "hqq on wgpu\n";
    }
    text += &files(job.assets)?;
    let hash = Sha256::digest(text.as_bytes());
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Names, sizes and times of the source's files.
fn files(directory: &Path) -> Result<String> {
    let io = |source| Error::Io { path: directory.to_owned(), source };
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            // Follows links, which download caches use.
            let metadata = fs::metadata(entry.path()).map_err(io)?;
            lines.push(format!(
                "{:?} {} {:?}\n",
                entry.file_name(),
                metadata.len(),
                metadata.modified().ok()
            ));
        }
    }
    lines.sort();
    Ok(lines.concat())
}
