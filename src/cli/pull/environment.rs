//! The endpoint, token and certificates that the environment sets.

use std::{env, fs, io, time::Duration};

use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::cli::pull::url::origin;
use crate::error::{Error, Result};
use crate::hub::cache;

const HUB: &str = "https://huggingface.co";
const SILENCE: Duration = Duration::from_secs(30);

/// Errors if HF_HUB_OFFLINE forbids downloads.
pub fn check_online() -> Result<()> {
    let offline = env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
    if ["1", "on", "yes", "true"].contains(&offline.as_str()) {
        return Err(Error::Input(format!("HF_HUB_OFFLINE={offline} forbids downloads: unset it")));
    }
    Ok(())
}

/// HF_ENDPOINT, or the Hub. Errors: the value is not a URL.
pub fn endpoint() -> Result<String> {
    let endpoint =
        env::var("HF_ENDPOINT").ok().filter(|text| !text.is_empty()).unwrap_or(HUB.into());
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
        || origin(&endpoint).is_none()
    {
        return Err(Error::Input(format!("HF_ENDPOINT={endpoint}: want a URL such as {HUB}")));
    }
    Ok(endpoint)
}

/// An HTTP client. Certificates are Mozilla's, or those of SSL_CERT_FILE.
pub fn agent() -> Result<Agent> {
    let mut config = Agent::config_builder()
        .user_agent(concat!("gemma4-wgpu/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(2 * SILENCE))
        .timeout_per_read(Some(SILENCE));
    if let Some(path) = cache::variable("SSL_CERT_FILE") {
        let pem = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let certificates: Vec<_> =
            parse_pem(&pem)
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
    Ok(Agent::new_with_config(config.build()))
}

/// HF_TOKEN, or the content of the file that `hf auth login` writes.
pub fn token() -> Result<Option<String>> {
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
