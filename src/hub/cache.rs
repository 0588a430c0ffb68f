//! The Hugging Face cache, in the layout of huggingface_hub. `blobs` holds contents by checksum,
//! `snapshots` trees of relative links to them, and `refs` the commits of branches.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::{env, io};

use crate::error::{Error, Result};

/// Whether a name from outside is safe as one component of a path.
pub fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

/// The folder where Hugging Face's programs keep their downloads.
pub struct Cache {
    root: PathBuf,
}

/// A repository's part of the cache.
pub struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

/// A function that makes a symbolic link: target, then place.
type LinkFn = fn(&Path, &Path) -> io::Result<()>;

/// An environment variable, if it is set and not empty.
pub fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// HF_HOME, or its default; `None` without a home directory.
pub fn home() -> Option<PathBuf> {
    variable("HF_HOME")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache/huggingface")))
}

impl Cache {
    /// Finds HF_HUB_CACHE, HF_HOME/hub, or the default.
    ///
    /// Errors: no home directory, in words.
    pub fn find() -> Result<Cache, String> {
        let root = variable("HF_HUB_CACHE").or_else(|| home().map(|home| home.join("hub")));
        root.map(|root| Cache { root }).ok_or_else(|| "no home directory: set HF_HOME".into())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place of `OWNER/NAME`, whose parts are plain.
    pub fn repository(&self, name: &str) -> Repository {
        let name = format!("models--{}", name.replace('/', "--"));
        Repository { folder: self.root.join(&name), locks: self.root.join(".locks").join(name) }
    }
}

impl Repository {
    /// The commit that `revision` names. `revision` is a branch, a tag, a commit's hash or the
    /// beginning of one. A branch or tag names its commit at the last pull. A beginning must be
    /// that of a commit with a snapshot. `None` if there is no such commit.
    ///
    /// Errors, as text: a file that contains no commit; a beginning of several hashes.
    pub fn commit(&self, revision: &str) -> Result<Option<String>, String> {
        let path = self.folder.join("refs").join(revision);
        if let Ok(text) = fs::read_to_string(&path) {
            return match text.trim() {
                commit if is_plain(commit) => Ok(Some(commit.into())),
                _ => Err(format!("{} names no revision", path.display())),
            };
        }
        let revision = revision.to_ascii_lowercase();
        let mut commits = self.commits();
        match commits.contains(&revision) {
            true => return Ok(Some(revision)),
            false => {
                commits.retain(|commit| is_short_hash(&revision) && commit.starts_with(&revision))
            }
        }
        match commits.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            several => {
                Err(format!("{revision} may be any of {}: give more digits", several.join(", ")))
            }
        }
    }

    /// The revisions that the cache has: branches, tags, and commits that have neither.
    pub fn revisions(&self) -> Vec<String> {
        let mut named = files_in(&self.folder.join("refs")).unwrap_or_default();
        named.sort();
        let mut commits = self.commits();
        named.retain(|name| {
            let Ok(Some(commit)) = self.commit(name) else { return false };
            let is_here = self.snapshot(&commit).is_dir();
            commits.retain(|other| *other != commit);
            is_here
        });
        named.extend(commits);
        named
    }

    /// The commits that have snapshots.
    fn commits(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join("snapshots")).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        let mut commits: Vec<_> =
            directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        commits.retain(|commit| is_plain(commit));
        commits.sort();
        commits
    }

    /// Records the commit of a branch or tag.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.folder.join("refs").join(revision);
        make_parent(&path)?;
        fs::write(&path, commit).map_err(|source| Error::Io { path, source })
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The place of the content with this checksum.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The path of an incomplete content.
    pub fn partial(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Whether a snapshot has a file, as a blob or, without links, in its place.
    pub fn has(&self, commit: &str, name: &str, etag: &str, bytes: u64) -> bool {
        let is_whole = |path: PathBuf| {
            fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == bytes)
        };
        is_whole(self.blob(etag)) || is_whole(self.snapshot(commit).join(name))
    }

    /// Adds a blob to a snapshot under a file's name.
    pub fn place(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        self.place_by(symlink, commit, name, etag)
    }

    fn place_by(&self, link: LinkFn, commit: &str, name: &str, etag: &str) -> Result<()> {
        let (blob, path) = (self.blob(etag), self.snapshot(commit).join(name));
        if let Err(source) = fs::metadata(&blob) {
            // huggingface_hub moves blobs to the snapshot if links are impossible.
            return if path.is_file() { Ok(()) } else { Err(Error::Io { path: blob, source }) };
        }
        make_parent(&path)?;
        let up = "../".repeat(2 + name.matches('/').count());
        // The link is made under another name and then renamed. So a running program sees the old
        // file or the new one.
        let temporary = path.with_file_name(format!(".{etag}.tmp"));
        let _ = fs::remove_file(&temporary);
        let placed = link(Path::new(&format!("{up}blobs/{etag}")), &temporary)
            .or_else(|_| fs::hard_link(&blob, &temporary))
            .or_else(|_| fs::copy(&blob, &temporary).map(|_| ()))
            .and_then(|()| fs::rename(&temporary, &path));
        // A rename of a hard link to the same file does nothing and leaves it.
        let _ = fs::remove_file(&temporary);
        placed.map_err(|source| Error::Io { path, source })
    }

    /// The lock that huggingface_hub holds during the download of a blob. Closing the file releases
    /// it. `None` if another process holds it.
    pub fn lock(&self, etag: &str) -> Result<Option<File>> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let io = |source| Error::Io { path: path.clone(), source };
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(file))
            }
            Err(fs::TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

/// Whether a text may be the beginning of a commit's hash. Like git, it needs four digits.
pub fn is_short_hash(text: &str) -> bool {
    (4..40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes the directory of a file.
pub fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(parent).map_err(|source| Error::Io { path: parent.into(), source })
}

/// Whether a path from outside remains inside the directory that it is joined to.
pub fn is_inside(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    !path.is_empty() && plain && !path.contains('\\') && !path.ends_with('/')
}

/// All files below a directory, as paths relative to it, with slashes.
pub fn files_in(directory: &Path) -> Result<Vec<String>> {
    fn walk(directory: &Path, prefix: &str, files: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.file_type()?.is_dir() {
                true => walk(&entry.path(), &format!("{prefix}{name}/"), files)?,
                // A link without its blob is not a file.
                false if entry.path().is_file() => files.push(format!("{prefix}{name}")),
                false => {}
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    let walked = walk(directory, "", &mut files);
    walked.map(|()| files).map_err(|source| Error::Io { path: directory.into(), source })
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.to_string_lossy().replace('/', "\\"), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Repository) {
        let root = tempfile::tempdir().unwrap();
        let repository = Cache { root: root.path().into() }.repository("owner/name");
        let blob = repository.blob("e7a6");
        make_parent(&blob).unwrap();
        fs::write(blob, "content").unwrap();
        (root, repository)
    }

    #[test]
    fn without_symbolic_links() {
        let (_root, repository) = cache();
        let path = repository.snapshot("c0").join("sub/a.gguf");
        for _ in 0..2 {
            assert!(repository.has("c0", "sub/a.gguf", "e7a6", 7));
            repository
                .place_by(
                    |_, _| Err(io::ErrorKind::PermissionDenied.into()),
                    "c0",
                    "sub/a.gguf",
                    "e7a6",
                )
                .unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "content");
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
        }
        // The state that huggingface_hub leaves.
        fs::remove_file(repository.blob("e7a6")).unwrap();
        assert!(
            repository.has("c0", "sub/a.gguf", "e7a6", 7)
                && !repository.has("c0", "sub/a.gguf", "e7a6", 8)
        );
        repository.place("c0", "sub/a.gguf", "e7a6").unwrap();
        assert_eq!(files_in(&repository.snapshot("c0")).unwrap(), ["sub/a.gguf"]);
        assert!(repository.place("c0", "b.gguf", "e7a7").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative() {
        let (_root, repository) = cache();
        for (name, target) in
            [("a.gguf", "../../blobs/e7a6"), ("sub/a.gguf", "../../../blobs/e7a6")]
        {
            for _ in 0..2 {
                repository.place("c0", name, "e7a6").unwrap();
            }
            let path = repository.snapshot("c0").join(name);
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
            assert_eq!(fs::read_to_string(path).unwrap(), "content");
        }
        let mut files = files_in(&repository.snapshot("c0")).unwrap();
        files.sort();
        assert_eq!(files, ["a.gguf", "sub/a.gguf"]);
    }

    #[test]
    fn revisions_by_branch_tag_and_commit() {
        let (_root, repository) = cache();
        let [first, second] = [
            "a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0",
            "a1b2ffff00000000000000000000000000000000",
        ];
        for commit in [first, second] {
            fs::create_dir_all(repository.snapshot(commit)).unwrap();
        }
        for (name, commit) in [("refs/pr/1", first), ("v1", first), ("gone", "c0ffee")] {
            repository.set_commit(name, commit).unwrap();
        }
        for name in ["refs/pr/1", "v1", first, "a1b2c", "A1B2C3"] {
            assert_eq!(repository.commit(name).unwrap().as_deref(), Some(first), "{name}");
        }
        for name in ["main", "refs", "refs/pr", "a1b", "a1b2d", "xyzzy"] {
            assert_eq!(repository.commit(name).unwrap(), None, "{name}");
        }
        let several = repository.commit("a1b2").unwrap_err();
        assert!(several.contains(first) && several.contains(second), "{several}");
        assert_eq!(repository.revisions(), ["refs/pr/1", "v1", second]);
    }

    #[test]
    fn one_process_downloads_a_blob() {
        let (_root, repository) = cache();
        let held = repository.lock("e7a6").unwrap();
        assert!(held.is_some() && repository.lock("e7a6").unwrap().is_none());
        drop(held);
        assert!(repository.lock("e7a6").unwrap().is_some());
    }

    #[test]
    fn paths_from_outside() {
        for path in ["a", "a/b.gguf", ".gitattributes"] {
            assert!(is_inside(path), "{path}");
        }
        for path in ["", "/a", "../a", "a/../b", "a\\b", "a/"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
