//! What a device must do: run steps of tokens through the model. CPU, wgpu and MLX stand behind it.
//!
//! A step is submitted without waiting and read later, so that the host can run a step ahead and a
//! browser never blocks. Several sequences may share a step.

mod kind;
mod sequences;

pub use kind::BackendKind;
pub(crate) use sequences::Sequences;

use crate::{
    Error, Result,
    model::{config::ModelConfig, source::LocalBoxFuture},
    sampling::Draw,
};

/// A sequence with its own KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceId(pub usize);

/// Tokens that a sequence takes in during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepTokens<'a> {
    /// These ids.
    Host(&'a [u32]),
    /// The one token that the sequence's previous step chose ([`StepOutput::chooses`]). It never
    /// visits the host, so the step can be submitted before the token is read.
    Previous,
}

impl StepTokens<'_> {
    /// How many tokens these are.
    pub fn count(&self) -> usize {
        match self {
            StepTokens::Host(tokens) => tokens.len(),
            StepTokens::Previous => 1,
        }
    }
}

/// What a sequence wants back from a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepOutput {
    /// Only the KV cache matters (all but the last chunk of a prompt).
    None,
    /// Logits of the last position, shape `[vocab]`.
    LastLogits,
    /// Logits of every position of the step, shape `[tokens, vocab]`.
    AllLogits,
    /// The id with the largest logit at the last position, chosen on the device (lowest id among
    /// equals).
    Greedy,
    /// An id drawn from the logits of the last position, on the device. [`Draw::choose`] defines
    /// it; where weights are f32 sums, a choice within some 1e-6 of the boundary between two tokens
    /// may fall to the other one.
    ///
    /// The step fails, submitted or read, if a logit is NaN or +∞, or none is finite.
    Sample(Draw),
}

impl StepOutput {
    /// Whether a token is chosen, with which the next step can go on.
    pub fn chooses(&self) -> bool {
        matches!(self, StepOutput::Greedy | StepOutput::Sample(_))
    }
}

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy)]
pub struct SequenceStep<'a> {
    pub sequence: SequenceId,
    pub tokens: StepTokens<'a>,
    pub output: StepOutput,
}

/// What came back for one sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    None,
    /// f32, `[vocab]` or `[tokens, vocab]` as asked.
    Logits(Vec<f32>),
    Token(u32),
}

/// A step that was submitted and not yet read. Tickets may be read in any order, each once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Limits and facts of a loaded model on its device.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendInfo {
    /// `"cpu"`, `"wgpu"`, `"mlx"`.
    pub backend: &'static str,
    /// The device's own name, with its driver or API.
    pub device: String,
    /// Positions that one sequence can hold.
    pub context_length: usize,
    /// Sequences that can be open at once.
    pub max_sequences: usize,
    /// Tokens that one step can take, over all its sequences.
    pub max_step_tokens: usize,
    /// Bytes of weights held on the device.
    pub weight_bytes: u64,
    /// Those of the table of per-layer embeddings among them, of which a token reads one row.
    pub table_bytes: u64,
    /// Bytes of KV cache held on the device.
    pub kv_bytes: u64,
    /// Most bytes held on the device so far, all buffers together.
    pub peak_bytes: u64,
}

/// What one kernel of a step took on the device.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// `matmul_coop`, `sdpa_decode`…
    pub name: &'static str,
    /// What tells it from others of its name: its shape and number format.
    pub detail: String,
    /// Nanoseconds since the step's first kernel began.
    pub start: u64,
    /// Nanoseconds.
    pub duration: u64,
    /// Bytes of weights that it read.
    pub weight_bytes: u64,
    /// Multiplications by weights.
    pub multiplications: u64,
}

/// The ids among `ids` that a vocabulary of `vocab` tokens has, in order and once. Errors if they
/// are all of it.
pub(crate) fn suppressible(ids: &[u32], vocab: usize) -> Result<Vec<u32>> {
    let mut known: Vec<u32> = ids.iter().copied().filter(|&id| (id as usize) < vocab).collect();
    known.sort_unstable();
    known.dedup();
    match known.len() < vocab {
        true => Ok(known),
        false => {
            Err(Error::Input(format!("all {vocab} tokens are suppressed: none is left to choose")))
        }
    }
}

/// A model loaded on a device.
pub trait Backend {
    fn config(&self) -> &ModelConfig;

    fn info(&self) -> BackendInfo;

    /// Opens an empty sequence. Errors when `max_sequences` are open.
    fn open_sequence(&mut self) -> Result<SequenceId>;

    /// Frees a sequence's place. Steps already submitted for it still finish.
    fn close_sequence(&mut self, sequence: SequenceId);

    /// Positions that the sequence holds (submitted steps included).
    fn sequence_len(&self, sequence: SequenceId) -> usize;

    /// Forgets all positions from `len` on. Errors if a sliding layer no longer holds the window
    /// that ends there (the caller then starts a new sequence), or if `len` exceeds the length.
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()>;

    /// Steps submitted from now on choose none of these tokens, as if their logits were −∞; logits
    /// that are read stay as they are. Ids outside the vocabulary do not matter; an empty list lets
    /// all tokens come again.
    ///
    /// Errors: a list that leaves no token.
    fn suppress(&mut self, ids: &[u32]) -> Result<()>;

    /// Starts a step: every sequence at most once. Never waits for the device.
    ///
    /// Errors: an empty step, a token id outside the vocabulary, more tokens than
    /// `max_step_tokens`, a sequence past `context_length`, `Previous` where the sequence's last
    /// step chose no token, a draw out of range.
    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket>;

    /// Runs a step like [`Backend::submit`] and times its kernels, which then run one by one.
    /// Nothing is read back.
    ///
    /// Errors: as `submit`; a device that cannot time its work.
    fn profile(
        &mut self,
        _step: &[SequenceStep<'_>],
    ) -> LocalBoxFuture<'_, Result<Vec<KernelTime>>> {
        let backend = self.info().backend;
        Box::pin(
            async move { Err(Error::Unsupported(format!("profiles on the {backend} backend"))) },
        )
    }

    /// Waits for a step and returns its results in the order of `submit`.
    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>>;
}
