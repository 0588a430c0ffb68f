//! The interface of a device: it runs steps of tokens through the model. CPU, wgpu and MLX
//! implement it.
//!
//! A step is submitted without waiting, and its results are read later. So the host can submit the
//! next step early, and a browser never blocks. Several sequences may share a step.

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
    /// The part of `weight_bytes` that one token does not read. It is the table of per-layer
    /// embeddings, and the experts that were not chosen.
    pub unread_bytes: u64,
    /// Bytes of KV cache held on the device.
    pub kv_bytes: u64,
    /// Most bytes held on the device so far, all buffers together.
    pub peak_bytes: u64,
}

/// The time and work of one kernel of a step on the device.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// `matmul_coop`, `sdpa_decode`…
    pub name: &'static str,
    /// Distinguishes it from others of its name: its shape and number format.
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

/// The ids of `ids` that a vocabulary of `vocab` tokens contains, sorted and without duplicates.
/// Errors if they are the whole vocabulary.
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

    /// The open sequences, which all backends manage in the same way.
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

    /// Forgets all positions from `len` on. Errors if `len` exceeds the length. Errors also if a
    /// sliding layer no longer holds the window that ends there. Then the caller starts a new
    /// sequence.
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        self.sequences_mut().truncate(sequence, len)
    }

    /// Later steps choose none of these tokens, as if their logits were −∞. Logits that are read do
    /// not change. Ids outside the vocabulary are ignored. An empty list ends the suppression.
    ///
    /// Errors: the list contains the whole vocabulary.
    fn suppress(&mut self, ids: &[u32]) -> Result<()>;

    /// Starts a step: every sequence at most once. Never waits for the device.
    ///
    /// Errors: an empty step, more tokens than `max_step_tokens`, a token id outside the
    /// vocabulary, a draw out of range. Errors also for a sequence past `context_length`, and for
    /// `Previous` if the sequence's last step chose no token.
    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket>;

    /// Runs a step like [`Backend::submit`], but its kernels one by one, and times them. Nothing is
    /// read back.
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
