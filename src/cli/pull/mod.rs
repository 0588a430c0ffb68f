//! `gemma4-wgpu pull`

mod client;
mod digest;
mod download;
mod environment;
mod fault;
mod listing;
mod progress;
mod url;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::BinaryBytes;

use self::client::Client;
use self::download::Downloads;
use self::listing::{Listing, RemoteFile};
use self::progress::Progress;
use super::Exit;
use super::interrupt::{self, Work};
use crate::hub::Name;
use crate::hub::cache::{self, Cache, Repository};
use crate::hub::select::{self, Wanted};
use crate::{Error, Result, checkpoint};

/// Download a model into the Hugging Face cache
///
/// Downloads config, tokenizer, chat template and safetensors of a repository. If the repository
/// has only one GGUF model, downloads that. The cache is the one of Hugging Face's programs, and
/// their downloads are not repeated. Each file is checked by its checksum. After an interruption
/// the same command continues. Prints the path of the model.
#[derive(Args)]
#[command(
    after_help = "Environment: HF_TOKEN (or the file that `hf auth login` writes), HF_ENDPOINT, \
                  HF_HOME, HF_HUB_CACHE; SSL_CERT_FILE, HTTPS_PROXY"
)]
pub struct PullArgs {
    /// OWNER/NAME, OWNER/NAME:FILE, or OWNER/NAME:TAG for the GGUF file with a tag such as Q4_0.
    /// @REVISION after NAME sets a branch, a tag, a commit or refs/pr/N. --model takes the same
    /// name with hf: before it
    #[arg(value_name = "OWNER/NAME[@REVISION][:FILE]")]
    model: String,
    /// The same as @REVISION [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// A model to pull, and where it comes from.
struct Pull<'a> {
    name: Name,
    cache: Repository,
    client: Client<'a>,
    work: &'a Work,
    progress: &'a Progress,
}

pub fn run(args: &PullArgs) -> Result<(), Exit> {
    let name = args.name()?;
    let cache = Cache::find().map_err(Error::Input)?;
    interrupt::install()?;
    let work = Work::begin();
    let progress = Progress::new(args.quiet);
    let pull = Pull {
        cache: cache.repository(&name.repository),
        name,
        client: Client::from_env(&work, &progress)?,
        work: &work,
        progress: &progress,
    };
    let done = pull.run(cache.root());
    progress.finish();
    if let Err(Exit::Interrupted) = done {
        progress.note("interrupted; the same command goes on where it stopped");
    }
    let path = done?;
    progress.note(&format!("run it: gemma4-wgpu run --model hf:{}", pull.name));
    writeln!(io::stdout(), "{}", path.display()).map_err(Exit::from_stdout)
}

impl PullArgs {
    /// The name of the model. Errors: not such a name, or two revisions.
    fn name(&self) -> Result<Name> {
        let fault = |reason: String| Error::Input(format!("{}: {reason}", self.model));
        let mut name = Name::parse(&self.model).map_err(fault)?;
        let Some(revision) = &self.revision else { return Ok(name) };
        if !cache::is_inside(revision) {
            return Err(Error::Input(format!(
                "--revision {revision}: want a branch, a tag or a commit"
            )));
        }
        if name.revision.as_ref().is_some_and(|other| other != revision) {
            return Err(fault(format!("--revision {revision} is another one: leave out either")));
        }
        name.revision = Some(revision.clone());
        Ok(name)
    }
}

impl Pull<'_> {
    /// Downloads the model. Returns its path in the cache.
    fn run(&self, root: &Path) -> Result<PathBuf, Exit> {
        let listing = Listing::get(&self.client, &self.name.repository, self.name.revision())?;
        let names = match select::wanted(
            &self.name.repository,
            &listing.names(),
            self.name.file.as_deref(),
        )? {
            Wanted::Files(names) => names,
            Wanted::Sharded { mut files, index } => {
                files.extend(self.shards(&listing, &index)?);
                files
            }
        };
        let files = names
            .iter()
            .map(|name| listing.file(&self.client, name))
            .collect::<Result<Vec<_>, Exit>>()?;
        self.check_space(root, &listing, &files)?;
        self.download(&listing, &files)?;
        // The branch is set only after all files are there, so that an incomplete model is not
        // found.
        for file in &files {
            self.cache.place(&listing.commit, &file.name, &file.etag)?;
        }
        if self.name.revision() != listing.commit {
            self.cache.set_commit(self.name.revision(), &listing.commit)?;
        }
        let snapshot = self.cache.snapshot(&listing.commit);
        Ok(match (&self.name.file, names.as_slice()) {
            (Some(file), names) if names.contains(file) => snapshot.join(file),
            (_, [first, ..]) if first.ends_with(".gguf") => snapshot.join(first),
            _ => snapshot,
        })
    }

    /// The names of the weight files, from their index, which is downloaded first.
    fn shards(&self, listing: &Listing, index: &str) -> Result<Vec<String>, Exit> {
        let file = listing.file(&self.client, index)?;
        self.download(listing, std::slice::from_ref(&file))?;
        let blob = Some(self.cache.blob(&file.etag)).filter(|path| path.is_file());
        let path = blob.unwrap_or_else(|| self.cache.snapshot(&listing.commit).join(index));
        let bytes = fs::read(&path).map_err(|source| Error::Io { path, source })?;
        Ok(checkpoint::safetensors::files::shard_names(
            Path::new(&format!("{}/{index}", self.name.repository)),
            &bytes,
        )?)
    }

    fn download(&self, listing: &Listing, files: &[RemoteFile]) -> Result<(), Exit> {
        let mut seen = HashSet::new();
        let files: Vec<_> = files.iter().filter(|file| seen.insert(&file.etag)).collect();
        self.progress.start(files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes)));
        let (cache, client, work, progress) = (&self.cache, &self.client, self.work, self.progress);
        let downloads = Downloads { client, cache, listing, progress, work };
        files.into_iter().try_for_each(|file| downloads.get(file))?;
        progress.finish();
        Ok(())
    }

    /// Errors if the disk has no room for the missing files.
    fn check_space(&self, root: &Path, listing: &Listing, files: &[RemoteFile]) -> Result<()> {
        let mut missing = 0u64;
        for file in files {
            if !self.cache.has(&listing.commit, &file.name, &file.etag, file.bytes) {
                let there =
                    fs::metadata(self.cache.partial(&file.etag)).map_or(0, |found| found.len());
                missing = missing.saturating_add(file.bytes.saturating_sub(there));
            }
        }
        let existing = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        // If the system does not report the free space, the download will fail by itself.
        let free = fs4::available_space(existing).unwrap_or(u64::MAX);
        if missing > free {
            let (missing, free, root) = (BinaryBytes(missing), BinaryBytes(free), root.display());
            let advice = "make room, or set HF_HOME to a place on another disk";
            return Err(Error::Input(format!(
                "{} needs {missing} in {root}, where {free} are free: {advice}",
                self.name.repository
            )));
        }
        let (repository, commit, count) = (&self.name.repository, &listing.commit, files.len());
        let missing = BinaryBytes(missing);
        self.progress
            .note(&format!("{repository} at {commit}: {count} files, {missing} to download"));
        Ok(())
    }
}
