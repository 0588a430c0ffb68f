//! Requests to an endpoint: which hosts get the token, and which failures are tried again.
//!
//! The crate hf-hub neither resumes nor checks downloads, so this code makes the requests itself.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{HeaderMap, Response, header};
use ureq::{Agent, Body};

use crate::cli::Exit;
use crate::cli::interrupt::Work;
use crate::cli::pull::environment;
use crate::cli::pull::fault::{Asked, Fault, Subject, unreachable};
use crate::cli::pull::progress::Progress;
use crate::cli::pull::url::{join, origin};
use crate::error::{Error, Result};

const MAX_REDIRECTS: usize = 10;
/// The longest wait that is accepted from a server.
const MAX_WAIT: Duration = Duration::from_secs(600);
const MAX_TEXT: u64 = 64 << 20;
/// Attempts in a row without progress before an error.
const ATTEMPTS: u32 = 5;
/// The first wait between two attempts. Each later wait is twice as long.
const WAIT: Duration = Duration::from_secs(1);
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
const SEGMENT: &AsciiSet = &PATH.add(b'/');

/// An endpoint of the Hub's API.
pub struct Client<'a> {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    work: &'a Work,
    progress: &'a Progress,
}

impl<'a> Client<'a> {
    /// The endpoint and token from the environment: HF_ENDPOINT; HF_TOKEN or its file. Certificates
    /// are Mozilla's, or those of SSL_CERT_FILE.
    ///
    /// Errors: values of a wrong form; HF_HUB_OFFLINE is set.
    pub fn from_env(work: &'a Work, progress: &'a Progress) -> Result<Client<'a>> {
        environment::check_online()?;
        let (endpoint, token) = (environment::endpoint()?, environment::token()?);
        Ok(Client { agent: environment::agent()?, endpoint, token, work, progress })
    }

    /// The JSON text of a revision's commit and files.
    pub fn revision(&self, repository: &str, revision: &str) -> Result<Vec<u8>, Exit> {
        let revision_part = utf8_percent_encode(revision, SEGMENT);
        let url = format!(
            "{}/api/models/{repository}/revision/{revision_part}?blobs=true",
            self.endpoint
        );
        let subject = Subject { repository, revision, file: None };
        self.persist(&format!("listing of {repository}"), || {
            let response = self.request("GET", &url, None, &subject)?;
            let reader = response.into_body().into_with_config().limit(MAX_TEXT);
            reader.read_to_vec().map_err(|error| Fault::passing(error.to_string()))
        })
    }

    /// The headers of a file, for facts that the listing lacks.
    pub fn head(&self, repository: &str, commit: &str, file: &str) -> Result<HeaderMap, Exit> {
        let subject = Subject { repository, revision: commit, file: Some(file) };
        self.persist(file, || {
            Ok(self.request("HEAD", &self.file_url(&subject), None, &subject)?.headers().clone())
        })
    }

    /// The bytes of a file, from the offset `from` on if the server supports that.
    pub fn file(
        &self,
        repository: &str,
        commit: &str,
        file: &str,
        from: u64,
    ) -> Result<Response<Body>, Fault> {
        let subject = Subject { repository, revision: commit, file: Some(file) };
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.request("GET", &self.file_url(&subject), range.as_deref(), &subject)
    }

    fn file_url(&self, subject: &Subject) -> String {
        let file = utf8_percent_encode(subject.file.unwrap_or_default(), PATH);
        format!("{}/{}/resolve/{}/{file}", self.endpoint, subject.repository, subject.revision)
    }

    /// Repeats an attempt until it succeeds, fails permanently, or fails too often in a row without
    /// progress.
    pub fn persist<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> Result<T, Fault>,
    ) -> Result<T, Exit> {
        let mut failures = 0;
        loop {
            if self.work.stopped() {
                return Err(Exit::Interrupted);
            }
            let (reason, wait, progress) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Fault::Final(error)) => return Err(Exit::Failed(error)),
                Err(Fault::Stopped) => return Err(Exit::Interrupted),
                Err(Fault::Passing { reason, wait, progress }) => (reason, wait, progress),
            };
            failures = if progress { 1 } else { failures + 1 };
            if failures >= ATTEMPTS {
                let advice = "the same command goes on from here";
                return Err(Error::Download(format!(
                    "{what}: {reason}, {failures} times in a row; {advice}"
                ))
                .into());
            }
            let wait = match wait {
                Some(wait) if wait > MAX_WAIT => {
                    let seconds = wait.as_secs();
                    return Err(Error::Download(format!(
                        "{what}: {reason}; try again in {seconds} s"
                    ))
                    .into());
                }
                Some(wait) => wait,
                None => WAIT * 2u32.pow(failures - 1),
            };
            let seconds = wait.as_secs();
            self.progress.note(&format!(
                "{what}: {reason}; again in {seconds} s ({failures} of {ATTEMPTS})"
            ));
            self.sleep(wait)?;
        }
    }

    fn sleep(&self, wait: Duration) -> Result<(), Exit> {
        let end = Instant::now() + wait;
        loop {
            if self.work.stopped() {
                return Err(Exit::Interrupted);
            }
            match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => {
                    thread::sleep(left.min(Duration::from_millis(100)))
                }
                _ => return Ok(()),
            }
        }
    }

    /// Follows redirects. Only the endpoint gets the token, because a repository's files are on
    /// other hosts. A HEAD request stops at a redirect to another host, because the endpoint's
    /// response has all wanted headers.
    fn request(
        &self,
        method: &str,
        url: &str,
        range: Option<&str>,
        subject: &Subject,
    ) -> Result<Response<Body>, Fault> {
        let home = origin(&self.endpoint);
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let is_home = origin(&url) == home;
            let mut request =
                if method == "HEAD" { self.agent.head(&url) } else { self.agent.get(&url) };
            request = request.header(header::ACCEPT_ENCODING, "identity");
            if let Some(range) = range {
                request = request.header(header::RANGE, range);
            }
            if let (true, Some(token)) = (is_home, &self.token) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let host = origin(&url).map_or(url.clone(), |(_, host, _)| host);
            let response = request.call().map_err(|error| unreachable(&host, error))?;
            let location =
                response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            match location {
                Some(location) if response.status().is_redirection() => {
                    let next = join(&url, location).ok_or_else(|| {
                        Error::Download(format!("{host} redirects to {location}, which is no URL"))
                    })?;
                    if method == "HEAD" && origin(&next) != home {
                        return Ok(response);
                    }
                    url = next;
                }
                _ if response.status().is_success() => return Ok(response),
                _ => {
                    let asked = Asked { endpoint: &self.endpoint, host: &host, is_home, subject };
                    return Err(asked.refusal(&response, self.token.is_some()));
                }
            }
        }
        Err(Error::Download(format!("{}: more than {MAX_REDIRECTS} redirects", subject.shown()))
            .into())
    }
}

/// A reader of a body's bytes.
pub fn reader(response: Response<Body>) -> impl Read {
    response.into_body().into_reader()
}
