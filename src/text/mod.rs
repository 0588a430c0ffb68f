//! Text to tokens and back: tokenizer, chat template, streaming decoder. Independent of models.

mod channels;
mod control_tokens;
mod gguf_vocabulary;
mod jinja;
mod known;
mod marks;
mod message;
mod pieces;
mod processor;
mod render_options;
mod stop_texts;
mod stream;
mod template;
mod template_values;
mod tokenizer;
mod tokenizer_json;
mod tool;
mod turn_end;

pub use channels::{AnswerEvent, AnswerParser, AnswerParts, BrokenCall, Channels, ToolCall};
pub(crate) use gguf_vocabulary::Kind as VocabularyKind;
pub use marks::RenderedPrompt;
pub use message::{Message, Part, ResultOf, Role};
pub use processor::{Processor, Prompt};
pub use render_options::RenderOptions;
pub(crate) use stop_texts::StopTexts;
pub use stream::TextStream;
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
pub use tool::Tool;
pub use turn_end::stop_ids;

/// A checkpoint's data about text, read by [`crate::checkpoint`] and used here.
#[derive(Debug, Clone, Default)]
pub struct TextAssets {
    /// `None` where the checkpoint has none (only token ids can then run).
    pub vocabulary: Option<Vocabulary>,
    /// Jinja source: chat_template.jinja, tokenizer_config.json or `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    pub bos_id: Option<u32>,
    /// Every id that ends an answer (generation_config, config, tokenizer).
    pub eos_ids: Vec<u32>,
    /// Whether a bare prompt starts with `bos_id`.
    pub add_bos: bool,
    /// Ids that are never chosen.
    pub suppressed_ids: Vec<u32>,
    /// Sampling that generation_config.json names, if any.
    pub sampling: SamplingDefaults,
}

/// Sampling values that a checkpoint recommends.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SamplingDefaults {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

/// A tokenizer as stored.
#[derive(Debug, Clone)]
pub enum Vocabulary {
    /// The bytes of tokenizer.json.
    TokenizerJson(Vec<u8>),
    Gguf(GgufVocabulary),
}

/// `tokenizer.ggml.*` metadata of a GGUF file.
#[derive(Debug, Clone, Default)]
pub struct GgufVocabulary {
    /// `llama` (SentencePiece-style), `gpt2` or `gemma4` (BPE with merges)… Converters disagree on
    /// it.
    pub model: String,
    pub pre: String,
    pub tokens: Vec<String>,
    pub scores: Vec<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    pub merges: Vec<String>,
    pub unknown_id: Option<u32>,
    pub add_space_prefix: bool,
}
