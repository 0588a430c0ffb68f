//! `gemma4-wgpu serve`

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::api::open::{DEFAULT_CONTEXT, DEMO};
use crate::cli::Exit;
use crate::cli::model::ModelArgs;
use crate::error::{Error, Result};
use crate::generate::{Scheduler, SchedulerOptions};
use crate::server::{App, Engine, EngineLoop, ServerOptions, serve};
use crate::text::Processor;

/// Answer requests over HTTP with the APIs of OpenAI, Anthropic and Ollama, several at once
///
/// Ctrl-C or SIGTERM ends the server: it takes no more requests and finishes those under way. A
/// second Ctrl-C ends it at once.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct ServeArgs {
    /// TOML file with options by their long names, such as port = 8080. Variables such as
    /// GEMMA4_WGPU_PORT take precedence over it, and the command line over both
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; 0.0.0.0 is all of the machine's addresses
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Key that clients must send. Other users of the machine may see it in the list of processes,
    /// unlike one from --api-key-file
    #[arg(long, value_name = "KEY", conflicts_with = "api_key_file")]
    api_key: Option<String>,
    /// File whose first line is the key that clients must send
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Another name of the model for clients; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Answers that are generated at once. Each has its own KV cache of the context's length
    #[arg(long, value_name = "N", default_value = "4")]
    parallel: NonZeroUsize,
    /// Most requests that wait while all sequences are busy. Others get status 429
    #[arg(long, value_name = "N", default_value_t = SchedulerOptions::default().max_queued)]
    max_queued: usize,
    /// Most prompt tokens of a step while other answers are generated. Fewer make these answers
    /// smoother, and prompts slower
    #[arg(long, value_name = "TOKENS", default_value = "128")]
    prompt_chunk: NonZeroUsize,
    /// Most bytes of a request
    #[arg(long, value_name = "BYTES", default_value_t = ServerOptions::default().max_body_bytes)]
    max_body: usize,
    /// Keep the line that older versions of Claude Code put before the system prompt. It differs in
    /// every request
    #[arg(long)]
    keep_billing_line: bool,
    /// Origin of web pages that may send requests, such as https://chat.example.com; * is any. May
    /// be repeated
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Seconds after which an answer is cancelled if its reader takes nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    reader_timeout: u64,
    /// Seconds in which answers under way may finish when the server ends
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    drain_timeout: u64,
    #[command(flatten)]
    model: ModelArgs,
}

pub fn run(args: &ServeArgs) -> Result<(), Exit> {
    if let Some(file) = &args.config {
        log::info!("options come from {} too", file.display());
    }
    let options = args.server_options()?;
    let checkpoint = args.model.open()?;
    let processor = Processor::new(&checkpoint.text_assets()?)?;
    let context_length = args.model.context_length(&checkpoint, DEFAULT_CONTEXT)?;
    // A port in use is found before the weights are loaded.
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("the server's threads", source))?;
    let address = SocketAddr::new(args.host, args.port);
    let bound = runtime.block_on(TcpListener::bind(address));
    let listener = bound.map_err(|source| Error::io(address.to_string(), source))?;
    let sequences = args.parallel.get();
    let backend = args.model.load_for(&checkpoint, context_length, sequences)?;
    let config = backend.config().clone();
    let scheduler = Scheduler::new(backend, processor.suppressed_ids(), args.scheduler_options())?;
    let (engine, engine_loop) = Engine::new();
    let app = App::new(engine, processor, config, scheduler.info().clone(), options);
    if !args.model.quiet {
        let address = listener.local_addr().unwrap_or(address);
        eprintln!("listening on http://{address}");
    }
    let drain = Duration::from_secs(args.drain_timeout);
    answer(&runtime, app, listener, drain, engine_loop, scheduler)
}

/// Runs the engine on this thread, and HTTP on those of the runtime.
fn answer(
    runtime: &Runtime,
    app: Arc<App>,
    listener: TcpListener,
    drain: Duration,
    engine_loop: EngineLoop,
    scheduler: Scheduler,
) -> Result<(), Exit> {
    let served = runtime.spawn(serve(app, listener, ended(), drain));
    if let Err(error) = engine_loop.run(scheduler) {
        return Err(Error::Device(format!("{error}; the server ends")).into());
    }
    // The engine has ended, because the server was shut down or has failed.
    let outcome = runtime.block_on(served);
    let outcome = outcome.unwrap_or_else(|error| Err(io::Error::other(error)));
    outcome.map_err(|source| Error::io("the HTTP server", source).into())
}

/// Waits for Ctrl-C or SIGTERM.
async fn ended() {
    let interrupted = async {
        // Without a handler for Ctrl-C it ends the process, which is right too.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {
            tokio::spawn(async {
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(crate::cli::interrupt::EXIT_CODE.into());
                }
            });
        }
        () = terminated => {}
    }
}

impl ServeArgs {
    fn scheduler_options(&self) -> SchedulerOptions {
        SchedulerOptions {
            max_queued: self.max_queued,
            prompt_chunk: self.prompt_chunk.get(),
            reader_timeout: Duration::from_secs(self.reader_timeout),
            ..SchedulerOptions::default()
        }
    }

    fn server_options(&self) -> Result<ServerOptions> {
        let model = self.model.model.as_deref().unwrap_or(Path::new(DEMO));
        Ok(ServerOptions {
            model: model_name(model),
            aliases: self.alias.clone(),
            api_key: self.key()?,
            max_body_bytes: self.max_body,
            keep_billing_line: self.keep_billing_line,
            cors_origins: self.cors_origin.clone(),
        })
    }

    /// Errors: a file that cannot be read, an empty key.
    fn key(&self) -> Result<Option<String>> {
        let key = match (&self.api_key, &self.api_key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                let text = text.map_err(|source| Error::io(file, source))?;
                text.lines().next().unwrap_or_default().trim().to_owned()
            }
            (None, None) => return Ok(None),
        };
        match key.is_empty() {
            true => Err(Error::Input("the API key is empty: give one, or leave it out".into())),
            false => Ok(Some(key)),
        }
    }
}

/// The name of a model for clients: OWNER/NAME of the hub, or a path's last part.
fn model_name(model: &Path) -> String {
    let text = model.to_string_lossy();
    match text.strip_prefix("hf:") {
        Some(name) => name.to_owned(),
        None => model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_clients() {
        let names = [
            ("demo", "demo"),
            ("hf:google/gemma-4-31b", "google/gemma-4-31b"),
            ("/models/gemma-4-31b-q4_0.gguf", "gemma-4-31b-q4_0.gguf"),
            ("models/gemma", "gemma"),
        ];
        for (path, name) in names {
            assert_eq!(model_name(Path::new(path)), name);
        }
    }
}
