//! What a device must do: run steps of tokens through the model. CPU, wgpu and MLX stand behind it.
//!
//! A step is submitted without waiting and read later, so that the host can run a step ahead and a
//! browser never blocks. Several sequences may share a step.

mod kind;
mod sequences;
mod step;

pub use kind::BackendKind;
pub use sequences::Sequences;
pub use step::{SequenceId, SequenceStep, StepInput, StepOutput, StepResult, Ticket};

use crate::model::{config::ModelConfig, source::LocalBoxFuture};
use crate::{Error, Result};

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

    /// The open sequences: one bookkeeping for all backends.
    fn sequences(&self) -> &Sequences;

    fn sequences_mut(&mut self) -> &mut Sequences;

    /// Opens an empty sequence. Errors when `max_sequences` are open.
    fn open_sequence(&mut self) -> Result<SequenceId> {
        self.sequences_mut().open()
    }

    /// Frees a sequence's place. Steps already submitted for it still finish.
    fn close_sequence(&mut self, sequence: SequenceId) {
        self.sequences_mut().close(sequence);
    }

    /// Positions that the sequence holds (submitted steps included).
    fn sequence_len(&self, sequence: SequenceId) -> usize {
        self.sequences().len(sequence)
    }

    /// Forgets all positions from `len` on. Errors if a sliding layer no longer holds the window
    /// that ends there (the caller then starts a new sequence), or if `len` exceeds the length.
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        self.sequences_mut().truncate(sequence, len)
    }

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
