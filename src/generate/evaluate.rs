//! Logits of given tokens, and measures of their prediction.

use rayon::prelude::*;

use crate::backend::{Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult};
use crate::error::{Error, Result};
use crate::generate::check_prompt;
use crate::sampling::argmax;

/// Most bytes of logits at a time. This bounds the memory of an evaluation for texts of any length.
const LOGITS_BYTES: usize = 64 << 20;

/// Runs `tokens` from an empty context and passes the logits of every position to
/// `visit(first, rows)`. The calls are in order. `rows` has shape `[n, vocab]`, for the positions
/// from `first` on.
///
/// Errors: no tokens, more tokens than the context holds, a failed step, an error of `visit`.
pub async fn each_logits(
    backend: &mut dyn Backend,
    tokens: &[u32],
    visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    each_logits_in_steps(backend, tokens, usize::MAX, visit).await
}

/// [`each_logits`] in steps of at most `most` tokens (at least 1). The number of tokens in a step
/// decides which kernels run, and some of them round activations.
pub async fn each_logits_in_steps(
    backend: &mut dyn Backend,
    tokens: &[u32],
    most: usize,
    visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    check_prompt(tokens.len(), backend.info().context_length)?;
    let sequence = backend.open_sequence()?;
    let outcome = run(backend, sequence, tokens, most, visit).await;
    backend.close_sequence(sequence);
    outcome
}

async fn run(
    backend: &mut dyn Backend,
    sequence: SequenceId,
    tokens: &[u32],
    most: usize,
    visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let vocab = backend.config().vocab_size;
    let rows =
        (LOGITS_BYTES / (4 * vocab)).min(most).clamp(1, backend.info().max_step_tokens.max(1));
    for (index, chunk) in tokens.chunks(rows).enumerate() {
        let step = SequenceStep {
            sequence,
            input: StepInput::Tokens(chunk),
            output: StepOutput::AllLogits,
        };
        let ticket = backend.submit(&[step])?;
        match backend.read(ticket).await?.as_slice() {
            [StepResult::Logits(logits)] if logits.len() == chunk.len() * vocab => {
                visit(index * rows, logits)?
            }
            _ => {
                return Err(Error::Device(
                    "the backend did not return the logits of every position".into(),
                ));
            }
        }
    }
    Ok(())
}

/// Mean negative log-likelihood of tokens, computed chunk by chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity {
    tokens: usize,
    nll: f64,
}

impl Perplexity {
    /// Counts `targets`, each predicted by its row of `logits`, shape `[targets, vocab]`; rows
    /// without a target are ignored. Errors if a target is outside the vocabulary.
    pub fn add(&mut self, logits: &[f32], vocab: usize, targets: &[u32]) -> Result<()> {
        let losses: Vec<f64> = logits
            .par_chunks_exact(vocab)
            .zip(targets)
            .map(|(row, &target)| match row.get(target as usize) {
                Some(&logit) => Ok(negative_log_likelihood(row, logit)),
                None => Err(Error::Input(format!(
                    "token id {target} is outside the vocabulary of {vocab}"
                ))),
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

/// How much predictions differ from those of a base, computed chunk by chunk. The measure is the
/// Kullback-Leibler divergence Σ p·ln(p/q), in nats. p is the base's probability, and q the
/// model's. See Kullback and Leibler, *On Information and Sufficiency*, 1951.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Divergence {
    positions: usize,
    sum: f64,
    max: f64,
    same_top: usize,
}

impl Divergence {
    /// Counts positions: `base` and `logits` have shape `[positions, vocab]`. Errors if they differ
    /// in shape.
    pub fn add(&mut self, base: &[f32], logits: &[f32], vocab: usize) -> Result<()> {
        if base.len() != logits.len() {
            return Err(Error::Input(format!(
                "the base has {} logits here, not {}",
                base.len(),
                logits.len()
            )));
        }
        let rows: Vec<(f64, bool)> = base
            .par_chunks_exact(vocab)
            .zip(logits.par_chunks_exact(vocab))
            .map(|(base, row)| (divergence(base, row), argmax(base) == argmax(row)))
            .collect();
        self.positions += rows.len();
        for (divergence, is_same) in rows {
            self.sum += divergence;
            self.max = self.max.max(divergence);
            self.same_top += usize::from(is_same);
        }
        Ok(())
    }

    /// Mean divergence in nats; `None` before the first position.
    pub fn mean(&self) -> Option<f64> {
        (self.positions > 0).then(|| self.sum / self.positions as f64)
    }

    /// The largest divergence of a position, in nats.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// Share of the positions at which the likeliest token is the base's; `None` before the first.
    pub fn same_top(&self) -> Option<f64> {
        (self.positions > 0).then(|| self.same_top as f64 / self.positions as f64)
    }
}

fn divergence(base: &[f32], row: &[f32]) -> f64 {
    let (of_base, of_row) = (Normal::of(base), Normal::of(row));
    let term = |(&b, &r): (&f32, &f32)| {
        let (b, r) = (of_base.log_probability(b), of_row.log_probability(r));
        // A token of probability zero in the base adds nothing, whatever the model's probability
        // is.
        if b == f64::NEG_INFINITY { 0.0 } else { b.exp() * (b - r) }
    };
    base.iter().zip(row).map(term).sum()
}

/// `ln Σ exp(row) − logit`.
fn negative_log_likelihood(row: &[f32], logit: f32) -> f64 {
    -Normal::of(row).log_probability(logit)
}

/// The normalization of a row of logits: their maximum, and ln Σ exp(logit − maximum). Kept apart,
/// because their sum would lose bits for large logits.
struct Normal {
    max: f64,
    ln_sum: f64,
}

impl Normal {
    fn of(row: &[f32]) -> Self {
        let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = row.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
        Normal { max, ln_sum: sum.ln() }
    }

    fn log_probability(&self, logit: f32) -> f64 {
        f64::from(logit) - self.max - self.ln_sum
    }
}
