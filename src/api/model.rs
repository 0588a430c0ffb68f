//! A loaded model with its text.

use crate::api::{Answer, ChatOptions};
use crate::backend::{Backend, BackendInfo};
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::generate::Perplexity;
use crate::generate::{
    Constraint, HostChoice, Request, SequenceState, TokenStream, each_logits_in_steps,
};
use crate::model::config::ModelConfig;
use crate::text::{Message, Processor, Prompt};

/// A model on its device. It answers conversations, continues texts and computes logits.
///
/// It keeps the KV cache between answers. A prompt that begins with the last prompt and its answer
/// only runs the tokens after them.
///
/// ```
/// use gemma4_wgpu::{ChatOptions, Message, Model, ModelOptions, backend::BackendKind};
///
/// let options = ModelOptions { backend: BackendKind::Cpu, ..ModelOptions::default() };
/// let mut model = Model::open_with("demo", &options)?;
/// let options = ChatOptions {
///     max_new_tokens: std::num::NonZeroUsize::new(4),
///     ..ChatOptions::default()
/// };
/// let answer = model.chat(&[Message::user("Once upon a time")], &options)?.text()?;
/// assert!(!answer.is_empty());
/// # Ok::<(), gemma4_wgpu::Error>(())
/// ```
pub struct Model {
    backend: Box<dyn Backend>,
    sequence: SequenceState,
    processor: Option<Processor>,
}

impl Model {
    /// A model that a backend has loaded. Without a processor it only accepts token ids.
    pub fn new(backend: Box<dyn Backend>, processor: Option<Processor>) -> Model {
        Model { backend, sequence: SequenceState::default(), processor }
    }

    /// Answers a conversation.
    ///
    /// Errors: no usable chat template, a prompt that exceeds the context, unusable options.
    pub fn chat(&mut self, messages: &[Message], options: &ChatOptions) -> Result<Answer<'_>> {
        let prompt = self.chat_prompt(messages, options)?;
        self.answer(&prompt, options)
    }

    /// Continues a text as it is, without the chat template. Control tokens that the text spells
    /// count as such.
    ///
    /// Errors: a prompt that exceeds the context, unusable options.
    pub fn generate(&mut self, prompt: &str, options: &ChatOptions) -> Result<Answer<'_>> {
        let prompt = self.processor()?.raw(prompt)?;
        self.answer(&prompt, options)
    }

    /// The prompt of a conversation. It reuses the tokens of the KV cache if they spell the same
    /// text.
    ///
    /// Errors: no usable chat template, or one that fails on these messages.
    pub fn chat_prompt(&self, messages: &[Message], options: &ChatOptions) -> Result<Prompt> {
        let processor = self.processor()?;
        let prompt = processor.chat(messages, &options.render_options())?;
        let tokens = processor.tokenizer().as_known(prompt.tokens, self.sequence.held());
        Ok(Prompt { tokens, ..prompt })
    }

    /// Answers a prompt of [`Self::chat_prompt`] or of [`Processor`].
    ///
    /// Errors: no tokenizer, a prompt that is empty or exceeds the context, unusable options.
    pub fn answer(&mut self, prompt: &Prompt, options: &ChatOptions) -> Result<Answer<'_>> {
        self.answer_with(prompt, options, None)
    }

    /// Answers a prompt with tokens that `constraint` allows, such as those of a
    /// grammar.
    ///
    /// Errors: as [`Self::answer`].
    pub fn answer_with(
        &mut self,
        prompt: &Prompt,
        options: &ChatOptions,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<Answer<'_>> {
        let processor = processor(&self.processor)?;
        let request = Request {
            prompt: &prompt.tokens,
            sampling: options.sampling(processor.sampling())?,
            max_new_tokens: options.max_new_tokens,
            eos_ids: processor.eos_ids(prompt),
            suppressed_ids: processor.suppressed_ids(),
            cancelled: &|| false,
        };
        let adjustments = options.adjustments();
        let choice = HostChoice { adjustments, constraint, ..HostChoice::default() };
        let stream = TokenStream::new(self.backend.as_ref(), &request)?;
        let stream = stream.choosing(&request.sampling, choice)?;
        let parser = processor.parser(prompt);
        Ok(Answer::new(self.backend.as_mut(), &mut self.sequence, stream, parser))
    }

    /// Forgets the conversation, to free its place in the KV cache.
    pub fn clear(&mut self) {
        self.sequence.reset(self.backend.as_mut());
    }

    /// The tokenizer, chat template and answer parser.
    ///
    /// Errors: the model was opened without a tokenizer.
    pub fn processor(&self) -> Result<&Processor> {
        processor(&self.processor)
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.backend.config()
    }

    /// The device, its limits and the memory that the model takes.
    pub fn info(&self) -> BackendInfo {
        self.backend.info()
    }

    /// Tokens of a text, after the start token if the tokenizer adds one. A control token that the
    /// text spells remains text.
    ///
    /// Errors: no tokenizer, or one that refuses the text.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        self.processor()?.tokenizer().encode_prompt(text, false)
    }

    /// Runs `tokens` from an empty context and passes the logits of every position to
    /// `visit(first, rows)`. The calls are in order. `rows` has shape `[n, vocab]`, for the
    /// positions from `first` on. A step has at most `step_tokens` tokens (at least 1), and that
    /// number may decide which kernels run. Forgets the conversation.
    ///
    /// Errors: no tokens, more tokens than the context holds, a failed step, an error of `visit`.
    pub async fn logits_in_steps(
        &mut self,
        tokens: &[u32],
        step_tokens: usize,
        visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.clear();
        each_logits_in_steps(self.backend.as_mut(), tokens, step_tokens, visit).await
    }
}

/// Waits for the device.
#[cfg(not(target_arch = "wasm32"))]
impl Model {
    /// Logits of every position, shape `[tokens, vocab]`: row `i` predicts the token after
    /// `tokens[i]`. Forgets the conversation. [`Self::logits_in_steps`] needs less memory.
    ///
    /// Errors: no tokens, more than the context holds, a failed step.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        pollster::block_on(self.logits_in_steps(tokens, usize::MAX, &mut |_, rows| {
            logits.extend_from_slice(rows);
            Ok(())
        }))?;
        Ok(logits)
    }

    /// Perplexity of a text: `exp` of the mean negative log-likelihood of its tokens. Every token
    /// after the first is predicted from all tokens before it. Forgets the conversation.
    ///
    /// Errors: fewer than two tokens, more than the context holds, a failed step.
    pub fn perplexity(&mut self, text: &str) -> Result<f64> {
        let (tokens, vocab) = (self.tokenize(text)?, self.config().vocab_size);
        let mut score = Perplexity::default();
        pollster::block_on(self.logits_in_steps(&tokens, usize::MAX, &mut |first, rows| {
            score.add(rows, vocab, &tokens[first + 1..])
        }))?;
        let too_short = || Error::Input("a perplexity needs at least 2 tokens".into());
        score.perplexity().ok_or_else(too_short)
    }
}

fn processor(processor: &Option<Processor>) -> Result<&Processor> {
    let missing = || Error::Tokenizer("the model has none: it takes token ids only".into());
    processor.as_ref().ok_or_else(missing)
}
