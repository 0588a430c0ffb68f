//! A server whose engine runs in a thread, and requests to it without a network.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use gemma4_wgpu::backend::Backend;
use gemma4_wgpu::checkpoint::Checkpoint;
use gemma4_wgpu::cpu::CpuBackend;
use gemma4_wgpu::generate::{Load, Scheduler, SchedulerOptions};
use gemma4_wgpu::model::config::ModelConfig;
use gemma4_wgpu::model::source::TensorSource;
use gemma4_wgpu::model::weights::LoadOptions;
use gemma4_wgpu::server::{App, Engine, ServerOptions, router};
use gemma4_wgpu::text::{Processor, TextAssets};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::random_model::RandomModel;
use crate::script;

pub const SLOTS: usize = 3;
pub const CONTEXT: usize = 512;

/// A running server.
pub struct Server {
    pub app: Arc<App>,
    pub engine: Engine,
    pub router: Router,
}

/// A response that has ended.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of each event but the last, which must be `[DONE]`.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers[header::CONTENT_TYPE], "text/event-stream");
        let events = self.body.strip_suffix("\n\n").expect("each event ends with an empty line");
        let mut events: Vec<&str> = events.split("\n\n").collect();
        assert_eq!(events.pop(), Some("data: [DONE]"));
        let json = |event: &str| serde_json::from_str(event.strip_prefix("data: ").unwrap());
        events.into_iter().map(|event| json(event).unwrap()).collect()
    }
}

/// Runs a test's requests.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test)
}

pub fn server() -> Server {
    server_with(ServerOptions::default(), SchedulerOptions::default())
}

pub fn server_with(options: ServerOptions, limits: SchedulerOptions) -> Server {
    let demo = Checkpoint::demo().unwrap();
    let assets = demo.text_assets().unwrap();
    server_of(demo, &assets, CONTEXT, options, limits)
}

/// A small random model with the embedded one's tokenizer, and the built-in template, which renders
/// tools.
pub fn random_server() -> Server {
    let layers = RandomModel::small().config().layers.clone();
    let model = RandomModel::new(ModelConfig {
        max_position_embeddings: 4096,
        ..ModelConfig::gemma4(4096, 36, layers)
    });
    let (options, limits) = (ServerOptions::default(), SchedulerOptions::default());
    server_of(model, &script::assets(), 4096, options, limits)
}

fn server_of(
    source: impl TensorSource + Send + 'static,
    assets: &TextAssets,
    context_length: usize,
    options: ServerOptions,
    limits: SchedulerOptions,
) -> Server {
    let (engine, engine_loop) = Engine::new();
    let (sender, receiver) = mpsc::channel();
    let processor = Processor::new(assets).unwrap();
    let suppressed = processor.suppressed_ids().to_vec();
    thread::spawn(move || {
        let load = LoadOptions { context_length, max_sequences: SLOTS, ..LoadOptions::default() };
        let backend = pollster::block_on(CpuBackend::load(&source, &load, &mut |_| ())).unwrap();
        let config = backend.config().clone();
        let scheduler = Scheduler::new(Box::new(backend), &suppressed, limits).unwrap();
        sender.send((config, scheduler.info().clone())).unwrap();
        engine_loop.run(scheduler).unwrap();
    });
    let (config, info) = receiver.recv().unwrap();
    let app = App::new(engine.clone(), processor, config, info, options);
    Server { router: router(&app), app, engine }
}

/// A server that answers by a script: see [`script::app`].
pub fn scripted(answers: &[(&str, &str)]) -> Server {
    scripted_with(answers, ServerOptions::default(), SchedulerOptions::default())
}

pub fn scripted_with(
    answers: &[(&str, &str)],
    options: ServerOptions,
    limits: SchedulerOptions,
) -> Server {
    let pair = |(text, answer): &(&str, &str)| ((*text).to_owned(), (*answer).to_owned());
    let app = script::app(answers.iter().map(pair).collect(), options, limits);
    Server { router: router(&app), engine: app.engine.clone(), app }
}

impl Server {
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Waits until the engine's counts, which follow a step, are as expected.
    pub async fn wait_for(&self, what: &str, is_so: impl Fn(Load) -> bool) -> Load {
        let start = Instant::now();
        loop {
            let load = self.engine.load();
            if is_so(load) {
                return load;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come: {load:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until all slots are free.
    pub async fn wait_until_idle(&self) -> Load {
        self.wait_for("the end", |load| load.running + load.queued == 0).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::post(path).body(body.into()).unwrap()).await
    }

    pub async fn chat(&self, body: Value) -> Answer {
        self.post("/v1/chat/completions", body.to_string()).await
    }

    pub async fn complete(&self, body: Value) -> Answer {
        self.post("/v1/completions", body.to_string()).await
    }
}

/// A chat request for the likeliest tokens, with further fields.
pub fn greedy(prompt: &str, tokens: usize, more: Value) -> Value {
    let mut body = json!({
        "model": "demo",
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": tokens,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}
