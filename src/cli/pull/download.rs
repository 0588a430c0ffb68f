//! Downloads one file into the cache. It continues an incomplete download. The file gets its own
//! name when its checksum is right.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use crate::cli::Exit;
use crate::cli::interrupt::Work;
use crate::cli::pull::client::{Client, reader};
use crate::cli::pull::digest::Digest;
use crate::cli::pull::fault::Fault;
use crate::cli::pull::listing::{Listing, RemoteFile};
use crate::cli::pull::progress::Progress;
use crate::error::{Error, Result};
use crate::hub::cache::{self, Repository};

const BUFFER: usize = 256 << 10;

/// The client and places of downloads.
pub struct Downloads<'a> {
    pub client: &'a Client<'a>,
    pub cache: &'a Repository,
    pub listing: &'a Listing,
    pub progress: &'a Progress,
    pub work: &'a Work,
}

impl Downloads<'_> {
    /// Downloads the content of a file, unless the cache has it.
    ///
    /// Errors: a refusal by the endpoint, a wrong checksum (then nothing of the content is kept), a
    /// full disk.
    pub fn get(&self, file: &RemoteFile) -> Result<(), Exit> {
        let _lock = self.lock(file)?;
        if self.cache.has(&self.listing.commit, &file.name, &file.etag, file.bytes) {
            self.progress.skip(file.bytes);
            return Ok(());
        }
        self.progress.begin(&file.name);
        let mut partial = self.open(file)?;
        let mut resumed = partial.bytes > 0;
        loop {
            self.client.persist(&file.name, || self.attempt(file, &mut partial))?;
            match partial.verify(file) {
                Ok(()) => break,
                // The incomplete file may come from another program. So there is one more attempt
                // from the beginning.
                Err(_) if resumed => {
                    self.progress.note(&format!(
                        "{}: what was there of it is damaged; fetching all of it",
                        file.name
                    ));
                    self.restart(&mut partial)?;
                    resumed = false;
                }
                Err(error) => {
                    let _ = fs::remove_file(&partial.path);
                    return Err(error.into());
                }
            }
        }
        let blob = self.cache.blob(&file.etag);
        let kept = partial.file.sync_all().and_then(|()| fs::rename(&partial.path, &blob));
        kept.map_err(|source| Error::Io { path: blob, source })?;
        self.progress.end(&file.name, file.bytes);
        Ok(())
    }

    /// Waits while another process downloads the same content.
    fn lock(&self, file: &RemoteFile) -> Result<File, Exit> {
        let mut is_noted = false;
        loop {
            if let Some(lock) = self.cache.lock(&file.etag)? {
                return Ok(lock);
            }
            if self.work.stopped() {
                return Err(Exit::Interrupted);
            }
            if !is_noted {
                self.progress
                    .note(&format!("{}: another process downloads it; waiting", file.name));
                is_noted = true;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Opens the incomplete file and computes its checksum so far.
    fn open(&self, file: &RemoteFile) -> Result<Partial, Exit> {
        let path = self.cache.partial(&file.etag);
        cache::make_parent(&path)?;
        let io = |source| Error::Io { path: path.clone(), source };
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        let empty = Digest::of(&file.etag, file.bytes);
        if empty.is_none() {
            self.progress.note(&format!(
                "{}: the endpoint tells no checksum; only its size is compared",
                file.name
            ));
        }
        let mut partial = Partial {
            path: path.clone(),
            file: opened,
            bytes: 0,
            most: 0,
            digest: empty.clone(),
            empty,
        };
        if partial.file.metadata().map_err(io)?.len() > file.bytes {
            self.restart(&mut partial)?;
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            match partial.file.read(&mut buffer).map_err(io)? {
                0 => return Ok(partial),
                _ if self.work.stopped() => return Err(Exit::Interrupted),
                count => {
                    partial.count(&buffer[..count]);
                    self.progress.skip(count as u64);
                }
            }
        }
    }

    fn restart(&self, partial: &mut Partial) -> Result<()> {
        self.progress.take_back(partial.bytes);
        partial.clear()
    }

    /// Appends bytes until the file is complete.
    fn attempt(&self, file: &RemoteFile, partial: &mut Partial) -> Result<(), Fault> {
        if partial.bytes == file.bytes {
            return Ok(());
        }
        let Listing { repository, commit, .. } = self.listing;
        let response = self.client.file(repository, commit, &file.name, partial.bytes)?;
        if partial.bytes > 0 && !continues_at(&response, partial.bytes) {
            self.restart(partial)?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                return Err(Fault::passing("the server sends another part than was asked for"));
            }
        }
        let (mut body, mut buffer, most) = (reader(response), vec![0; BUFFER], partial.most);
        loop {
            if self.work.stopped() {
                return Err(Fault::Stopped);
            }
            let (count, ending) = match body.read(&mut buffer) {
                Ok(0) => (0, "the connection ended".to_owned()),
                Ok(count) => (count, String::new()),
                Err(error) => (0, error.to_string()),
            };
            if partial.bytes + count as u64 > file.bytes {
                let _ = fs::remove_file(&partial.path);
                let (name, bytes) = (&file.name, file.bytes);
                return Err(Error::Download(format!(
                    "{name}: the server sends more than its {bytes} bytes"
                ))
                .into());
            }
            if count > 0 {
                partial.append(&buffer[..count])?;
                self.progress.add(count as u64);
            } else if partial.bytes == file.bytes {
                return Ok(());
            } else {
                let reason = format!("{ending} at {} of {} bytes", partial.bytes, file.bytes);
                return Err(Fault::Passing { reason, wait: None, progress: partial.most > most });
            }
        }
    }
}

/// Whether a response is the part of a file that begins at an offset.
fn continues_at(response: &Response<Body>, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// An incomplete file.
struct Partial {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// The most bytes that the file ever had. Fewer bytes are no progress.
    most: u64,
    digest: Option<Digest>,
    empty: Option<Digest>,
}

impl Partial {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|source| Error::Io { path: self.path.clone(), source })?;
        self.count(bytes);
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.most = self.most.max(self.bytes);
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
    }

    fn clear(&mut self) -> Result<()> {
        (self.bytes, self.digest) = (0, self.empty.clone());
        let cleared = self.file.set_len(0).and_then(|()| self.file.rewind());
        cleared.map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Errors unless the complete file has the checksum of its name.
    fn verify(&self, file: &RemoteFile) -> Result<()> {
        match self.digest.clone().map(Digest::finish) {
            Some(found) if !found.eq_ignore_ascii_case(&file.etag) => {
                let (name, wanted) = (&file.name, &file.etag);
                let reason = format!(
                    "what came has the checksum {found}, not {wanted}; it was removed, \
                     pull it again"
                );
                Err(Error::Download(format!("{name}: {reason}")))
            }
            _ => Ok(()),
        }
    }
}
