//! Figures of an answer: lines for people, JSON for programs.

use std::{fmt, time::Duration};

use indicatif::BinaryBytes;
use serde::Serialize;

use crate::cli::session::{Answered, Session};
use crate::generate::FinishReason;
use crate::text::{BrokenCall, ToolCall};

/// An answer with its figures. Times are in seconds, rates in tokens per second.
#[derive(Serialize)]
pub struct Report<'a> {
    text: &'a str,
    /// The model's thoughts; null if there are none.
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [ToolCall],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    broken_tool_calls: &'a [BrokenCall],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    channels: Vec<Channel<'a>>,
    tokens: &'a [u32],
    finish_reason: FinishReason,
    seed: Option<u64>,
    prompt_tokens: usize,
    cached_tokens: usize,
    generated_tokens: usize,
    load_s: f64,
    time_to_first_token_s: Option<f64>,
    prefill_tokens_per_s: Option<f64>,
    decode_tokens_per_s: Option<f64>,
    backend: &'static str,
    device: String,
    context_length: usize,
    weight_bytes: u64,
    kv_bytes: u64,
    peak_device_bytes: u64,
}

/// Text of a channel that holds neither thoughts nor the answer.
#[derive(Serialize)]
struct Channel<'a> {
    name: &'a str,
    text: &'a str,
}

/// Output to stderr after an answer.
pub struct Output {
    /// Whether the answer is one of a chat.
    pub chat: bool,
    /// Whether the user never sees the answer's thoughts.
    pub hides_thoughts: bool,
    /// The figures.
    pub stats: bool,
    /// How long loading took.
    pub load_time: Duration,
}

impl Output {
    /// Warns of a full context, and of an answer that consists only of thoughts. Prints the figures
    /// if the user wants them.
    pub fn after(&self, answer: &Answered, session: &Session) {
        let report = self.report(answer, session);
        if report.finish_reason == FinishReason::ContextFull {
            let clear = if self.chat { "/clear empties it, " } else { "" };
            eprintln!(
                "warning: the context of {} tokens is full, so the answer ends here; \
                 {clear}--ctx sets its length",
                report.context_length
            );
        }
        if self.hides_thoughts && report.text.is_empty() && report.reasoning.is_some() {
            eprintln!("warning: the answer is nothing but thoughts, which --thinking shows");
        }
        if self.stats {
            eprintln!("{report}");
        }
    }

    /// The answer with its figures.
    pub fn report<'a>(&self, answer: &'a Answered, session: &Session) -> Report<'a> {
        let info = session.model.info();
        let stats = &answer.generation.stats;
        let channels = answer.parts.channels.iter();
        let channels = channels.map(|(name, text)| Channel { name, text }).collect();
        Report {
            text: &answer.parts.content,
            reasoning: answer.parts.reasoning.as_deref(),
            tool_calls: &answer.parts.tool_calls,
            broken_tool_calls: &answer.parts.broken_calls,
            channels,
            tokens: &answer.generation.tokens,
            finish_reason: answer.generation.finish_reason,
            seed: answer.generation.seed,
            prompt_tokens: stats.prompt_tokens,
            cached_tokens: stats.cached_tokens,
            generated_tokens: stats.generated_tokens,
            load_s: self.load_time.as_secs_f64(),
            time_to_first_token_s: stats.time_to_first_token.map(|time| time.as_secs_f64()),
            prefill_tokens_per_s: stats.prefill_rate(),
            decode_tokens_per_s: stats.decode_rate(),
            backend: info.backend,
            device: info.device,
            context_length: info.context_length,
            weight_bytes: info.weight_bytes,
            kv_bytes: info.kv_bytes,
            peak_device_bytes: info.peak_bytes,
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate =
            |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1} tok/s"));
        let first =
            self.time_to_first_token_s.map_or("-".to_owned(), |time| format!("{time:.3} s"));
        writeln!(f, "device         {} ({})", self.device, self.backend)?;
        writeln!(
            f,
            "device memory  {} peak: {} weights, {} KV cache of {} tokens",
            BinaryBytes(self.peak_device_bytes),
            BinaryBytes(self.weight_bytes),
            BinaryBytes(self.kv_bytes),
            self.context_length
        )?;
        writeln!(f, "load           {:.3} s", self.load_s)?;
        writeln!(
            f,
            "prompt         {} tokens, {} of them cached",
            self.prompt_tokens, self.cached_tokens
        )?;
        writeln!(f, "first token    {first}")?;
        writeln!(f, "prefill        {}", rate(self.prefill_tokens_per_s))?;
        write!(
            f,
            "decode         {}, {} tokens",
            rate(self.decode_tokens_per_s),
            self.generated_tokens
        )
    }
}
