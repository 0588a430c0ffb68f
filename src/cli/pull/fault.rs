//! Why a request failed, and whether another attempt may succeed.

use std::io;
use std::time::{Duration, SystemTime};

use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode, header};

use crate::{error::Error, hub::cache};

/// The reason of a failed attempt.
pub enum Fault {
    Final(Error),
    /// Another attempt may succeed. `progress`: bytes arrived before the failure.
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

/// The subject of a request, for messages.
pub struct Subject<'a> {
    pub repository: &'a str,
    pub revision: &'a str,
    pub file: Option<&'a str>,
}

impl Subject<'_> {
    pub fn shown(&self) -> String {
        let Subject { repository, revision, file } = self;
        match file {
            Some(file) => format!("{repository}, {file} at {revision}"),
            None => (*repository).to_owned(),
        }
    }
}

/// The host of a request.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub endpoint: &'a str,
    pub host: &'a str,
    /// Whether the host is the endpoint, which may get the token.
    pub is_home: bool,
    pub subject: &'a Subject<'a>,
}

impl Asked<'_> {
    /// The fault of a status that is neither success nor redirection.
    pub fn refusal(&self, response: &Response<Body>, has_token: bool) -> Fault {
        let Asked { endpoint, host, is_home, subject } = *self;
        let status = response.status();
        let said = format!("{host} answers {status}");
        let passes = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
            // Links to other hosts expire, and the endpoint then gives a new one.
            || (!is_home && status != StatusCode::RANGE_NOT_SATISFIABLE);
        if passes {
            return Fault::Passing {
                reason: said,
                wait: retry_after(response.headers()),
                progress: false,
            };
        }
        let Subject { repository, revision, .. } = subject;
        let what = subject.shown();
        let code = response
            .headers()
            .get("x-error-code")
            .and_then(|code| code.to_str().ok())
            .unwrap_or_default();
        let licence = format!("accept its licence at {endpoint}/{repository}");
        let make_token = format!("set HF_TOKEN to a token from {endpoint}/settings/tokens");
        let reason = match (status, has_token) {
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                return Fault::Passing { reason: said, wait: None, progress: false };
            }
            (StatusCode::UNAUTHORIZED, false) => {
                format!(
                    "it is gated, private or does not exist: {licence} if it has one, \
                     and {make_token}"
                )
            }
            (StatusCode::UNAUTHORIZED, true) if code == "RepoNotFound" => {
                "it does not exist, or the token's account may not see it".into()
            }
            (StatusCode::UNAUTHORIZED, true) => {
                format!("the token is not valid, or the repository is gated: {make_token}")
            }
            (StatusCode::FORBIDDEN, false) => format!("it is gated: {licence}, and {make_token}"),
            (StatusCode::FORBIDDEN, true) => {
                format!(
                    "no access with this token: {licence}, or let the token read gated repositories"
                )
            }
            (StatusCode::NOT_FOUND, _) => match (subject.file, code) {
                (Some(_), _) => "there is no such file".into(),
                (None, "RevisionNotFound") if cache::is_short_hash(revision) => {
                    format!(
                        "it has no revision {revision}: a commit is named by all 40 digits of its \
                         hash"
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

/// The wait that a header demands, as seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The fault of a request without a response.
pub fn unreachable(host: &str, error: ureq::Error) -> Fault {
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

#[cfg(test)]
mod tests {
    use super::*;

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
