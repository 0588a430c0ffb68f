//! Steps: what sequences take in, what they want back, and what came back.

use crate::sampling::Draw;

/// A sequence with its own KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceId(pub usize);

/// What a sequence takes in during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepInput<'a> {
    /// These token ids.
    Tokens(&'a [u32]),
    /// The one token that the sequence's previous step chose ([`StepOutput::chooses`]). It never
    /// visits the host, so the step can be submitted before the token is read.
    Previous,
}

impl StepInput<'_> {
    /// Positions that it fills.
    pub fn count(&self) -> usize {
        match self {
            StepInput::Tokens(tokens) => tokens.len(),
            StepInput::Previous => 1,
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
    pub input: StepInput<'a>,
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
