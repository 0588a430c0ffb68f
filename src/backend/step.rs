//! Steps: the inputs of sequences, the outputs that they request, and the results.

use crate::sampling::Draw;

/// A sequence with its own KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceId(pub usize);

/// The input of a sequence in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepInput<'a> {
    /// These token ids.
    Tokens(&'a [u32]),
    /// The one token that the sequence's previous step chose ([`StepOutput::chooses`]). The device
    /// keeps it, so the step can be submitted before the host reads the token.
    Previous,
}

impl StepInput<'_> {
    /// Number of positions that it fills.
    pub fn count(&self) -> usize {
        match self {
            StepInput::Tokens(tokens) => tokens.len(),
            StepInput::Previous => 1,
        }
    }
}

/// The output of a step that a sequence requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepOutput {
    /// No output, only the KV cache. For all chunks of a prompt but the last.
    None,
    /// Logits of the last position, shape `[vocab]`.
    LastLogits,
    /// Logits of every position of the step, shape `[tokens, vocab]`.
    AllLogits,
    /// The id with the largest logit at the last position, chosen on the device (lowest id among
    /// equals).
    Greedy,
    /// An id drawn from the logits of the last position, on the device. [`Draw::choose`] defines
    /// it. A device may sum weights in f32. Then it may choose another token if the draw is within
    /// about 1e-6 of the boundary between two tokens.
    ///
    /// The step fails when submitted or read if a logit is NaN or +∞, or none is finite.
    Sample(Draw),
}

impl StepOutput {
    /// Whether a token is chosen, which the next step can take as its input.
    pub fn chooses(&self) -> bool {
        matches!(self, StepOutput::Greedy | StepOutput::Sample(_))
    }
}

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy)]
pub struct SequenceStep<'a> {
    pub sequence: SequenceId,
    pub input: StepInput<'a>,
    pub output: StepOutput,
}

/// The result of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    None,
    /// f32, `[vocab]` or `[tokens, vocab]`, as requested.
    Logits(Vec<f32>),
    Token(u32),
}

/// A step that was submitted and not yet read. Tickets may be read in any order, each once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);
