//! The content of a repository at a revision: a commit, and files with their sizes and checksums.

use serde::Deserialize;
use ureq::http::{HeaderMap, header};

use crate::cli::{Exit, pull::client::Client};
use crate::error::Error;
use crate::hub::cache::{self, is_plain};

/// The files of a repository at a commit.
pub struct Listing {
    pub repository: String,
    pub commit: String,
    files: Vec<Sibling>,
}

/// A file, and the name of its content in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    pub name: String,
    pub bytes: u64,
    /// SHA-256 of a large file, git's hash of a small one.
    pub etag: String,
}

/// The response of `/api/models/OWNER/NAME/revision/REVISION?blobs=true`.
#[derive(Deserialize)]
struct Revision {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// A large file, whose git object is a pointer.
#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl Listing {
    /// Requests the listing from the endpoint.
    pub fn get(client: &Client<'_>, repository: &str, revision: &str) -> Result<Listing, Exit> {
        let bytes = client.revision(repository, revision)?;
        let odd = |reason: &str| {
            Error::Download(format!("listing of {repository}: {reason}; is HF_ENDPOINT right?"))
        };
        let found: Revision =
            serde_json::from_slice(&bytes).map_err(|error| odd(&error.to_string()))?;
        match is_plain(&found.sha) {
            true => Ok(Listing {
                repository: repository.into(),
                commit: found.sha,
                files: found.siblings,
            }),
            false => Err(odd("it names no commit").into()),
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.files.iter().map(|file| file.rfilename.clone()).collect()
    }

    /// A file of the listing. Mirrors may leave out its size or checksum. Then the file's headers
    /// are requested.
    pub fn file(&self, client: &Client<'_>, name: &str) -> Result<RemoteFile, Exit> {
        let odd = |reason: &str| Error::Download(format!("{}, {name}: {reason}", self.repository));
        let found = self
            .files
            .iter()
            .find(|file| file.rfilename == name)
            .filter(|_| cache::is_inside(name));
        let found = found.ok_or_else(|| odd("the repository has no such file"))?;
        let etag = found.lfs.as_ref().map(|lfs| &lfs.sha256).or(found.blob_id.as_ref());
        let (bytes, etag) = match (found.size, etag) {
            (Some(bytes), Some(etag)) => (bytes, etag.clone()),
            _ => {
                let headers = client.head(&self.repository, &self.commit, name)?;
                of_headers(&headers)
                    .ok_or_else(|| odd("the endpoint tells neither its size nor its checksum"))?
            }
        };
        match is_plain(&etag) {
            true => Ok(RemoteFile { name: name.into(), bytes, etag }),
            false => Err(odd("its ETag is no checksum").into()),
        }
    }
}

/// Size and checksum. A link to another host has headers with those of its target.
fn of_headers(headers: &HeaderMap) -> Option<(u64, String)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bytes =
        text("x-linked-size").or_else(|| text(header::CONTENT_LENGTH.as_str()))?.parse().ok()?;
    let etag = text("x-linked-etag").or_else(|| text(header::ETAG.as_str()))?;
    Some((bytes, etag.trim_start_matches("W/").trim_matches('"').to_owned()))
}
