//! What all endpoints share.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::engine::Engine;
use super::error::ApiError;
use super::fields::Fields;
use super::metrics::Metrics;
use crate::backend::BackendInfo;
use crate::error::Error;
use crate::grammar::{Grammars, LazyGrammars};
use crate::model::config::ModelConfig;
use crate::text::Processor;

/// What a server needs to know beside its engine.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The model's name for clients.
    pub model: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// The key that clients must send, if any.
    pub api_key: Option<String>,
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Whether the line that older versions of Claude Code put before the system prompt stays. It
    /// differs in every request.
    pub keep_billing_line: bool,
    /// Origins of pages that may send requests; `*` is all of them.
    pub cors_origins: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            model: "demo".into(),
            aliases: Vec::new(),
            api_key: None,
            max_body_bytes: 16 << 20,
            keep_billing_line: false,
            cors_origins: Vec::new(),
        }
    }
}

/// A server's parts.
pub struct App {
    pub engine: Engine,
    pub processor: Processor,
    pub config: ModelConfig,
    pub info: BackendInfo,
    pub options: ServerOptions,
    pub metrics: Metrics,
    /// Seconds since 1970 at which the server began.
    pub created: u64,
    key_digest: Option<[u8; 32]>,
    grammars: LazyGrammars,
}

impl App {
    /// An app without open connections.
    pub fn new(
        engine: Engine,
        processor: Processor,
        config: ModelConfig,
        info: BackendInfo,
        options: ServerOptions,
    ) -> Arc<App> {
        let key_digest = options.api_key.as_ref().map(|key| Sha256::digest(key).into());
        Arc::new(App {
            engine,
            processor,
            config,
            info,
            options,
            metrics: Metrics::new(),
            created: seconds(),
            key_digest,
            grammars: LazyGrammars::default(),
        })
    }

    /// Grammars of the model's vocabulary, which are made at the first use.
    ///
    /// Errors: a vocabulary that cannot be used.
    pub fn grammars(&self, eos_ids: &[u32]) -> Result<&Grammars, Error> {
        self.grammars.get(self.processor.tokenizer(), self.config.vocab_size, eos_ids)
    }

    /// Whether a client may enter with this key. Digests are compared, so that the time does not
    /// tell how much of a key is right.
    pub fn accepts(&self, key: Option<&str>) -> bool {
        match (&self.key_digest, key) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(digest), Some(key)) => *digest == <[u8; 32]>::from(Sha256::digest(key)),
        }
    }

    /// Errors: the request names a model that is not loaded.
    pub fn check_model(&self, fields: &Fields) -> Result<(), ApiError> {
        match fields.text("model")? {
            None => Ok(()),
            Some(name) => self.find_model(name),
        }
    }

    /// What the model can do, in Ollama's words.
    pub fn capabilities(&self) -> Vec<&'static str> {
        let source =
            self.processor.template().map(|template| template.source()).unwrap_or_default();
        let by_template = [("tools", "tools"), ("enable_thinking", "thinking")];
        let found = by_template.iter().filter(|(text, _)| source.contains(text));
        ["completion"].into_iter().chain(found.map(|(_, name)| *name)).collect()
    }

    /// Errors: no model has this name. Ollama's clients may add the tag `latest`.
    pub fn find_model(&self, name: &str) -> Result<(), ApiError> {
        let plain = name.strip_suffix(":latest").unwrap_or(name);
        let mut names = [&self.options.model].into_iter().chain(&self.options.aliases);
        let known = names.any(|known| known == name || known == plain);
        if known { Ok(()) } else { Err(ApiError::no_model(name)) }
    }
}

/// Seconds since 1970.
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A name that no other answer has: the keys of std's hashes come from the system's entropy.
pub fn new_id(prefix: &str) -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{prefix}{:016x}{:016x}", random(), random())
}
