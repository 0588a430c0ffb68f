//! Logits of given tokens, and how well they were predicted.

use rayon::prelude::*;

use super::check_prompt;
use crate::{
    Error, Result,
    backend::{Backend, SequenceId, SequenceStep, StepOutput, StepResult, StepTokens},
};

/// Logits held at once, in bytes: bounds the memory of an evaluation whatever the text's length.
const LOGITS_BYTES: usize = 64 << 20;

/// Runs `tokens` from an empty context and gives the logits of every position, in order, to
/// `visit(first, rows)`: `rows` has shape `[n, vocab]`, for the positions from `first` on.
///
/// Errors: no tokens, more than the context holds, a failed step, what `visit` returns.
pub async fn each_logits(
    backend: &mut dyn Backend,
    tokens: &[u32],
    visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    check_prompt(tokens.len(), backend.info().context_length)?;
    let sequence = backend.open_sequence()?;
    let outcome = run(backend, sequence, tokens, visit).await;
    backend.close_sequence(sequence);
    outcome
}

async fn run(
    backend: &mut dyn Backend,
    sequence: SequenceId,
    tokens: &[u32],
    visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let vocab = backend.config().vocab_size;
    let rows = (LOGITS_BYTES / (4 * vocab)).clamp(1, backend.info().max_step_tokens.max(1));
    for (index, chunk) in tokens.chunks(rows).enumerate() {
        let step = SequenceStep { sequence, tokens: StepTokens::Host(chunk), output: StepOutput::AllLogits };
        let ticket = backend.submit(&[step])?;
        match backend.read(ticket).await?.as_slice() {
            [StepResult::Logits(logits)] if logits.len() == chunk.len() * vocab => visit(index * rows, logits)?,
            _ => return Err(Error::Device("the backend did not return the logits of every position".into())),
        }
    }
    Ok(())
}

/// Mean negative log-likelihood of tokens, gathered a chunk at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity {
    tokens: usize,
    nll: f64,
}

impl Perplexity {
    /// Counts `targets`, each predicted by its row of `logits`, shape `[targets, vocab]`; rows
    /// without a target are ignored. Errors if a target lies outside the vocabulary.
    pub fn add(&mut self, logits: &[f32], vocab: usize, targets: &[u32]) -> Result<()> {
        let losses: Vec<f64> = logits
            .par_chunks_exact(vocab)
            .zip(targets)
            .map(|(row, &target)| match row.get(target as usize) {
                Some(&logit) => Ok(negative_log_likelihood(row, logit)),
                None => Err(Error::Input(format!("token id {target} is outside the vocabulary of {vocab}"))),
            })
            .collect::<Result<_>>()?;
        self.tokens += losses.len();
        self.nll += losses.iter().sum::<f64>();
        Ok(())
    }

    /// Tokens predicted so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Mean negative log-likelihood in nats; `None` before the first token.
    pub fn mean_nll(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nll / self.tokens as f64)
    }

    /// `exp` of [`Self::mean_nll`].
    pub fn perplexity(&self) -> Option<f64> {
        self.mean_nll().map(f64::exp)
    }
}

/// `ln Σ exp(row) − logit`, safe for large logits.
fn negative_log_likelihood(row: &[f32], logit: f32) -> f64 {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    sum.ln() - (f64::from(logit) - max)
}
