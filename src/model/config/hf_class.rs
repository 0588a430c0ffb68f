//! Configuration classes of transformers, with their defaults and kinds of layers.

use serde_json::Value;

use crate::error::{Error, Result, quoted};
use crate::model::config::Architecture;

/// The configuration class that reads the text model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Gemma3,
    Gemma4,
    /// The encoder-free Gemma 4 (12B). Its text model is the same with other defaults, but never
    /// has per-layer embeddings or experts.
    Gemma4Unified,
}

impl Class {
    pub(super) fn of(model_type: &str) -> Result<Self> {
        match model_type {
            "gemma3" | "gemma3_text" => Ok(Class::Gemma3),
            "gemma4" | "gemma4_text" => Ok(Class::Gemma4),
            "gemma4_unified" | "gemma4_unified_text" => Ok(Class::Gemma4Unified),
            other => Err(Error::Unsupported(format!(
                "architecture {} (Gemma 3 and Gemma 4 text models run)",
                quoted(other)
            ))),
        }
    }

    pub(super) fn architecture(self) -> Architecture {
        match self {
            Class::Gemma3 => Architecture::Gemma3,
            Class::Gemma4 | Class::Gemma4Unified => Architecture::Gemma4,
        }
    }

    pub(super) fn default_vocab_size(self) -> usize {
        if self == Class::Gemma3 { 262_208 } else { 262_144 }
    }

    pub(super) fn default_layers(self) -> usize {
        if self == Class::Gemma3 { 26 } else { 30 }
    }

    pub(super) fn default_window(self) -> usize {
        match self {
            Class::Gemma3 => 4096,
            Class::Gemma4 => 512,
            Class::Gemma4Unified => 1024,
        }
    }

    pub(super) fn default_max_positions(self) -> usize {
        if self == Class::Gemma4Unified { 262_144 } else { 131_072 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerType {
    Sliding,
    Full,
}

impl LayerType {
    pub(super) fn parse(value: &Value) -> Result<Self> {
        match value.as_str() {
            Some("sliding_attention") => Ok(LayerType::Sliding),
            Some("full_attention") => Ok(LayerType::Full),
            Some(other) => Err(Error::Unsupported(format!("layer type {}", quoted(other)))),
            None => Err(Error::Config("layer_types holds something else than strings".into())),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            LayerType::Sliding => "sliding_attention",
            LayerType::Full => "full_attention",
        }
    }
}
