//! Figures for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

use crate::generate::Load;

/// Upper bounds of times in seconds.
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

/// The figures of a server.
pub struct Metrics {
    registry: Registry,
    requests: Family<Status, Counter>,
    first_token: Histogram,
    running: Gauge,
    queued: Gauge,
    steps: Counter<u64, AtomicU64>,
    prompt_tokens: Counter<u64, AtomicU64>,
    generated_tokens: Counter<u64, AtomicU64>,
    cancelled: Counter<u64, AtomicU64>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("gemma4_wgpu"),
            requests: Family::default(),
            first_token: Histogram::new(SECONDS),
            running: Gauge::default(),
            queued: Gauge::default(),
            steps: Counter::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            cancelled: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Answered HTTP requests by status", metrics.requests.clone());
        registry.register(
            "time_to_first_token_seconds",
            "Time from a request to its first token",
            metrics.first_token.clone(),
        );
        registry.register("sequences_running", "Answers with a slot", metrics.running.clone());
        registry.register("sequences_queued", "Answers without a slot", metrics.queued.clone());
        registry.register("steps", "Steps of the model", metrics.steps.clone());
        registry.register("prompt_tokens", "Prompt tokens", metrics.prompt_tokens.clone());
        registry.register("generated_tokens", "Chosen tokens", metrics.generated_tokens.clone());
        registry.register(
            "sequences_cancelled",
            "Answers whose reader left or was too slow",
            metrics.cancelled.clone(),
        );
        metrics
    }

    /// Counts an answered request.
    pub fn count(&self, status: u16) {
        self.requests.get_or_create(&Status { status }).inc();
    }

    /// Counts an answer's time to its first token.
    pub fn first_token(&self, time: Duration) {
        self.first_token.observe(time.as_secs_f64());
    }

    /// The figures in the OpenMetrics text format.
    pub fn text(&self, load: Load) -> Result<String, std::fmt::Error> {
        self.running.set(load.running as i64);
        self.queued.set(load.queued as i64);
        self.steps.inner().store(load.steps, Relaxed);
        self.prompt_tokens.inner().store(load.prompt_tokens, Relaxed);
        self.generated_tokens.inner().store(load.generated_tokens, Relaxed);
        self.cancelled.inner().store(load.cancelled, Relaxed);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
