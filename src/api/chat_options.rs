//! How an answer is made.

use std::num::NonZeroUsize;

use crate::error::Result;
use crate::sampling::{Adjustments, SamplingParams};
use crate::text::{RenderOptions, SamplingDefaults};

/// How an answer is made. A sampling value that is `None` comes from the checkpoint, or else is
/// Gemma's default ([`SamplingParams::default`]).
///
/// ```
/// use gemma4_wgpu::ChatOptions;
///
/// // The likeliest tokens, 32 of them at most.
/// let options = ChatOptions {
///     temperature: Some(0.0),
///     max_new_tokens: std::num::NonZeroUsize::new(32),
///     ..ChatOptions::default()
/// };
/// assert!(!options.thinking);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ChatOptions {
    /// Most tokens of the answer. `None`: as many as the context has room for.
    pub max_new_tokens: Option<NonZeroUsize>,
    /// Randomness; 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Choose among this many of the likeliest tokens; 0 for all.
    pub top_k: Option<usize>,
    /// Choose among the likeliest tokens that together reach this probability.
    pub top_p: Option<f32>,
    /// Leave out tokens less likely than this fraction of the likeliest.
    pub min_p: Option<f32>,
    /// Above 1: make tokens that already occurred less likely.
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that the answer already has.
    pub presence_penalty: f32,
    /// Subtracted for each occurrence of a token in the answer.
    pub frequency_penalty: f32,
    /// The same seed gives the same answer. `None`: another seed each time.
    pub seed: Option<u64>,
    /// Let models that can think before they answer.
    pub thinking: bool,
    /// Text in messages that spells a control token becomes that token, as in transformers.
    pub parse_special: bool,
}

impl ChatOptions {
    /// The sampling values for a checkpoint. Errors: a value that cannot be used.
    pub fn sampling(&self, checkpoint: &SamplingDefaults) -> Result<SamplingParams> {
        let gemma = SamplingParams::default();
        let params = SamplingParams {
            temperature: self.temperature.or(checkpoint.temperature).unwrap_or(gemma.temperature),
            top_k: self.top_k.or(checkpoint.top_k).unwrap_or(gemma.top_k),
            top_p: self.top_p.or(checkpoint.top_p).unwrap_or(gemma.top_p),
            min_p: self.min_p.or(checkpoint.min_p).unwrap_or(gemma.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(checkpoint.repetition_penalty)
                .unwrap_or(gemma.repetition_penalty),
            seed: self.seed,
        };
        params.validate().map(|()| params)
    }

    /// The changes of logits before the choice.
    pub fn adjustments(&self) -> Adjustments {
        Adjustments {
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: Vec::new(),
        }
    }

    /// How the chat template is rendered.
    pub fn render_options(&self) -> RenderOptions {
        RenderOptions {
            enable_thinking: self.thinking,
            parse_special: self.parse_special,
            ..RenderOptions::default()
        }
    }
}
