//! Requests to an endpoint: who may see the token, which failures are tried again, and what the
//! others mean.
//!
//! The crate hf-hub does not resume downloads and does not check them, so the requests are our own.

use std::{
    env, fs,
    io::{self, Read},
    thread,
    time::{Duration, Instant, SystemTime},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, Uri, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{
    cli::{Exit, interrupt::Work, pull::progress::Progress},
    error::{Error, Result},
    hub::cache,
};

const HUB: &str = "https://huggingface.co";
const SILENCE: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
/// The longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);
const MAX_TEXT: u64 = 64 << 20;
/// How often something is tried in a row without success.
const ATTEMPTS: u32 = 5;
/// The first wait between two attempts; each next one is twice that.
const WAIT: Duration = Duration::from_secs(1);
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
const SEGMENT: &AsciiSet = &PATH.add(b'/');

/// Why an attempt failed.
pub enum Fault {
    Final(Error),
    /// May pass. `progress`: something was gained before it occurred.
    Passing {
        reason: String,
        wait: Option<Duration>,
        progress: bool,
    },
    Stopped,
}

impl Fault {
    pub fn passing(reason: impl Into<String>) -> Fault {
        Fault::Passing { reason: reason.into(), wait: None, progress: false }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Final(error)
    }
}

/// An endpoint of the Hub's API.
pub struct Client<'a> {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    work: &'a Work,
    progress: &'a Progress,
}

impl<'a> Client<'a> {
    /// The endpoint and token that the environment names: HF_ENDPOINT; HF_TOKEN or its file.
    /// Certificates are Mozilla's, or those of SSL_CERT_FILE.
    ///
    /// Errors: values that are no such things; HF_HUB_OFFLINE is set.
    pub fn from_env(work: &'a Work, progress: &'a Progress) -> Result<Client<'a>> {
        let offline = env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
        if ["1", "on", "yes", "true"].contains(&offline.as_str()) {
            return Err(Error::Input(format!(
                "HF_HUB_OFFLINE={offline} forbids downloads: unset it"
            )));
        }
        let endpoint =
            env::var("HF_ENDPOINT").ok().filter(|text| !text.is_empty()).unwrap_or(HUB.into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
            || origin(&endpoint).is_none()
        {
            return Err(Error::Input(format!("HF_ENDPOINT={endpoint}: want a URL such as {HUB}")));
        }
        let mut config = Agent::config_builder()
            .user_agent(concat!("gemma4-wgpu/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(2 * SILENCE))
            .timeout_per_read(Some(SILENCE));
        if let Some(path) = cache::variable("SSL_CERT_FILE") {
            let pem = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
            let certificates: Vec<_> = parse_pem(&pem)
                .filter_map(|item| {
                    if let Ok(PemItem::Certificate(item)) = item { Some(item) } else { None }
                })
                .collect();
            if certificates.is_empty() {
                return Err(Error::Input(format!(
                    "SSL_CERT_FILE={} holds no PEM certificates",
                    path.display()
                )));
            }
            let roots = RootCerts::new_with_certs(&certificates);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let agent = Agent::new_with_config(config.build());
        Ok(Client { agent, endpoint, token: token()?, work, progress })
    }

    /// The JSON text that tells a revision's commit and files.
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

    /// What the headers tell of a file that the listing does not.
    pub fn head(&self, repository: &str, commit: &str, file: &str) -> Result<HeaderMap, Exit> {
        let subject = Subject { repository, revision: commit, file: Some(file) };
        self.persist(file, || {
            Ok(self.request("HEAD", &self.file_url(&subject), None, &subject)?.headers().clone())
        })
    }

    /// The bytes of a file, from the offset `from` on if the server can do that.
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

    /// Does it until it succeeds, fails for good, or fails too often in a row without progress.
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

    /// Follows redirects. The token goes to the endpoint alone: a repository's files lie on other
    /// hosts. A HEAD request ends before those, as what it asks for is known by the endpoint.
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
                _ => return Err(self.refusal(&response, &host, is_home, subject)),
            }
        }
        Err(Error::Download(format!("{}: more than {MAX_REDIRECTS} redirects", subject.shown()))
            .into())
    }

    /// What a status that is neither success nor redirection means.
    fn refusal(
        &self,
        response: &Response<Body>,
        host: &str,
        is_home: bool,
        subject: &Subject,
    ) -> Fault {
        let status = response.status();
        let said = format!("{host} answers {status}");
        let passes = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
            // Links to other hosts expire; the endpoint gives a new one.
            || (!is_home && status != StatusCode::RANGE_NOT_SATISFIABLE);
        if passes {
            return Fault::Passing {
                reason: said,
                wait: retry_after(response.headers()),
                progress: false,
            };
        }
        let Subject { repository, revision, .. } = subject;
        let (what, endpoint) = (subject.shown(), &self.endpoint);
        let code = response
            .headers()
            .get("x-error-code")
            .and_then(|code| code.to_str().ok())
            .unwrap_or_default();
        let licence = format!("accept its licence at {endpoint}/{repository}");
        let make_token = format!("set HF_TOKEN to a token from {endpoint}/settings/tokens");
        let reason = match (status, &self.token) {
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                return Fault::Passing { reason: said, wait: None, progress: false };
            }
            (StatusCode::UNAUTHORIZED, None) => {
                format!(
                    "it is gated, private or does not exist: {licence} if it has one, and {make_token}"
                )
            }
            (StatusCode::UNAUTHORIZED, Some(_)) if code == "RepoNotFound" => {
                "it does not exist, or the token's account may not see it".into()
            }
            (StatusCode::UNAUTHORIZED, Some(_)) => {
                format!("the token is not valid, or the repository is gated: {make_token}")
            }
            (StatusCode::FORBIDDEN, None) => format!("it is gated: {licence}, and {make_token}"),
            (StatusCode::FORBIDDEN, Some(_)) => {
                format!(
                    "no access with this token: {licence}, or let the token read gated repositories"
                )
            }
            (StatusCode::NOT_FOUND, _) => match (subject.file, code) {
                (Some(_), _) => "there is no such file".into(),
                (None, "RevisionNotFound") if cache::is_short_hash(revision) => {
                    format!(
                        "it has no revision {revision}: a commit is named by all 40 digits of its hash"
                    )
                }
                (None, "RevisionNotFound") => format!("it has no revision {revision}"),
                (None, "RepoNotFound") => "there is no such repository".into(),
                (None, _) => {
                    format!("there is no such repository, or it has no revision {revision}")
                }
            },
            _ => "that is not what was expected".into(),
        };
        Error::Download(format!("{what}: {said}: {reason}")).into()
    }
}

/// What a request is about.
struct Subject<'a> {
    repository: &'a str,
    revision: &'a str,
    file: Option<&'a str>,
}

impl Subject<'_> {
    fn shown(&self) -> String {
        let Subject { repository, revision, file } = self;
        match file {
            Some(file) => format!("{repository}, {file} at {revision}"),
            None => (*repository).to_owned(),
        }
    }
}

/// HF_TOKEN, or the file that `hf auth login` writes.
fn token() -> Result<Option<String>> {
    let (source, text) = match env::var("HF_TOKEN") {
        Ok(text) if !text.trim().is_empty() => ("HF_TOKEN".to_owned(), text),
        _ => {
            let path = cache::variable("HF_TOKEN_PATH")
                .or_else(|| cache::home().map(|home| home.join("token")));
            let Some(path) = path else { return Ok(None) };
            match fs::read_to_string(&path) {
                Ok(text) => (path.display().to_string(), text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(Error::Io { path, source }),
            }
        }
    };
    match text.trim() {
        "" => Ok(None),
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(token.to_owned())),
        _ => Err(Error::Input(format!("{source} holds no token: want one word such as hf_…"))),
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default = if scheme == "https" { 443 } else { 80 };
    Some((scheme, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(default)))
}

/// Where a Location header leads.
fn join(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let url = match location {
        _ if location.contains("://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => return None,
    };
    // Who was asked over TLS does not lead to where everybody may listen.
    (origin(&url).is_some() && (scheme != "https" || url.starts_with("https://"))).then_some(url)
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn unreachable(host: &str, error: ureq::Error) -> Fault {
    let reason = format!("{host}: {error}");
    match &error {
        ureq::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            Error::Download(format!("{reason} (SSL_CERT_FILE names other root certificates)"))
                .into()
        }
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => Fault::passing(reason),
        _ => Error::Download(reason).into(),
    }
}

/// A body of bytes as they come.
pub fn reader(response: Response<Body>) -> impl Read {
    response.into_body().into_reader()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_lead() {
        let base = "https://hub.example/a/b?c";
        assert_eq!(join(base, "/x?y").as_deref(), Some("https://hub.example/x?y"));
        assert_eq!(join(base, "//cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(join(base, "https://cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        for bad in ["http://hub.example/x", "x", "ftp://hub.example/x", "https://"] {
            assert_eq!(join(base, bad), None, "{bad}");
        }
    }

    #[test]
    fn one_origin_and_others() {
        assert_eq!(origin("https://Hub.example/x"), origin("https://hub.example:443"));
        for other in [
            "http://hub.example",
            "https://hub.example:8443",
            "https://hub.example.evil",
            "https://x.hub.example",
        ] {
            assert_ne!(origin("https://hub.example"), origin(other), "{other}");
        }
    }

    #[test]
    fn waits_that_servers_ask_for() {
        let wait = |value: &str| {
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]))
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(
            wait(&httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90)))
                .unwrap()
                .as_secs()
                > 80
        );
        assert_eq!(wait("soon"), None);
    }
}
