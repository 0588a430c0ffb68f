//! Options and results as JSON, in JavaScript's spelling.

use std::num::NonZeroUsize;

use gemma4_wgpu::{
    ChatOptions, Error, Message, Result,
    generate::{FinishReason, Generation},
    model::{kv::CacheType, weights::LoadOptions},
    quant::Quantize,
    text::{AnswerParts, ToolCall},
};
use serde::{Deserialize, Serialize};

/// The default context length.
const DEFAULT_CONTEXT: usize = 4096;

/// `LoadOptions` of web/js/protocol.ts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Load {
    context_length: Option<NonZeroUsize>,
    quantize: Option<QuantizeName>,
    cache_type: Option<CacheName>,
    pub backend: BackendName,
    /// The smallest and the largest subgroup size of devices that the worker opens. `None` if the
    /// browser does not give them.
    #[serde(default)]
    pub subgroups: Option<[u32; 2]>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum QuantizeName {
    Auto,
    Int4,
    Int8,
    None,
}

/// The worker replaces `auto`.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    WebGpu,
    Cpu,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum CacheName {
    F16,
    F32,
}

impl Load {
    /// For a model with `most` positions. Errors: a longer context.
    pub fn resolve(&self, most: usize) -> Result<LoadOptions> {
        let context_length = match self.context_length.map(NonZeroUsize::get) {
            None => DEFAULT_CONTEXT.min(most),
            Some(length) if length <= most => length,
            Some(length) => {
                return Err(Error::Input(format!(
                    "contextLength {length} exceeds the model's {most} positions"
                )));
            }
        };
        Ok(LoadOptions {
            quantize: match self.quantize {
                None | Some(QuantizeName::Auto) => Quantize::Auto,
                Some(QuantizeName::Int4) => Quantize::Int4,
                Some(QuantizeName::Int8) => Quantize::Int8,
                Some(QuantizeName::None) => Quantize::None,
            },
            cache_type: match self.cache_type {
                None | Some(CacheName::F16) => CacheType::F16,
                Some(CacheName::F32) => CacheType::F32,
            },
            context_length,
            max_sequences: 1,
        })
    }
}

/// A conversation, or a text to continue as it is.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    Text(String),
    Messages(Vec<Message>),
}

/// `ChatOptions` of web/js/protocol.ts.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Chat {
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    max_tokens: Option<NonZeroUsize>,
    #[serde(default)]
    thinking: bool,
}

impl From<Chat> for ChatOptions {
    fn from(chat: Chat) -> ChatOptions {
        ChatOptions {
            max_new_tokens: chat.max_tokens,
            temperature: chat.temperature,
            top_k: chat.top_k,
            top_p: chat.top_p,
            min_p: chat.min_p,
            repetition_penalty: chat.repetition_penalty,
            seed: chat.seed,
            thinking: chat.thinking,
            parse_special: false,
            ..ChatOptions::default()
        }
    }
}

/// `ChatResult` of web/js/protocol.ts, without the text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    reasoning: Option<&'a str>,
    tool_calls: &'a [ToolCall],
    tokens: &'a [u32],
    finish_reason: &'static str,
    seed: Option<u64>,
    prompt_tokens: usize,
    cached_tokens: usize,
    /// Seconds.
    time_to_first_token: Option<f64>,
    /// Tokens per second.
    prefill_rate: Option<f64>,
    decode_rate: Option<f64>,
    /// Bytes of all buffers.
    peak_bytes: u64,
}

impl<'a> Answer<'a> {
    pub fn new(generation: &'a Generation, parts: &'a AnswerParts, peak_bytes: u64) -> Self {
        let stats = &generation.stats;
        Answer {
            reasoning: parts.reasoning.as_deref(),
            tool_calls: &parts.tool_calls,
            tokens: &generation.tokens,
            finish_reason: match generation.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
                FinishReason::ContextFull => "context-full",
                FinishReason::Cancelled => "cancelled",
            },
            seed: generation.seed,
            prompt_tokens: stats.prompt_tokens,
            cached_tokens: stats.cached_tokens,
            time_to_first_token: stats.time_to_first_token.map(|time| time.as_secs_f64()),
            prefill_rate: stats.prefill_rate(),
            decode_rate: stats.decode_rate(),
            peak_bytes,
        }
    }
}

/// Options from JSON. Errors name what is wrong.
pub fn parse<T: serde::de::DeserializeOwned>(what: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::Input(format!("{what}: {error}")))
}
