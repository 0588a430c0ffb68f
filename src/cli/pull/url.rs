//! Origins of URLs, and targets of redirects.

use ureq::http::Uri;

/// Scheme, host and port.
pub fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default = if scheme == "https" { 443 } else { 80 };
    Some((scheme, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(default)))
}

/// The target of a Location header.
pub fn join(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let url = match location {
        _ if location.contains("://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => return None,
    };
    // A redirect from TLS to an unencrypted URL is refused.
    (origin(&url).is_some() && (scheme != "https" || url.starts_with("https://"))).then_some(url)
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
}
