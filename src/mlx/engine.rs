//! The state on MLX's thread: the model, its caches, and unfinished steps.

use std::collections::HashMap;

use crate::backend::{StepOutput, StepResult};
use crate::error::{Error, Result};
use crate::mlx::forward::{Model, Segment, rows_of};
use crate::mlx::kv_cache::KvCache;
use crate::mlx::ops::{Array, Dtype, async_eval};
use crate::sampling;

/// One sequence's part of a step, checked.
pub(super) struct Part {
    pub slot: usize,
    pub position: usize,
    /// `None` means the token that the slot's last step chose.
    pub tokens: Option<Vec<u32>>,
    pub output: StepOutput,
}

/// The state of a slot for a sequence.
pub(super) struct Slot {
    /// For each layer.
    pub caches: Vec<KvCache>,
    /// The token that its last step chose, u32 `[1]`.
    chosen: Option<Array>,
}

impl Slot {
    pub fn new(caches: Vec<KvCache>) -> Self {
        Slot { caches, chosen: None }
    }
}

/// The requested output of a step, not computed yet.
enum Outcome {
    /// Only the end of the computation.
    Nothing,
    Logits(Array),
    Token(Array),
}

/// A submitted step.
struct Started {
    /// The last hidden states. Once they exist, all the step's keys and values exist too.
    hidden: Array,
    outcomes: Vec<Outcome>,
}

pub(super) struct Engine {
    pub model: Model,
    pub slots: Vec<Slot>,
    /// By ticket. A failed step keeps its error for the reader.
    steps: HashMap<u64, Result<Started>>,
    /// Tokens that are never chosen.
    suppressed: Vec<u32>,
}

impl Engine {
    pub fn new(model: Model, slots: Vec<Slot>) -> Self {
        Engine { model, slots, steps: HashMap::new(), suppressed: Vec::new() }
    }

    /// Later steps choose none of `ids`, which are in the vocabulary.
    pub fn suppress(&mut self, ids: Vec<u32>) {
        self.suppressed = ids;
    }

    /// Builds a step's graph and starts its evaluation.
    pub fn start(&mut self, ticket: u64, parts: &[Part]) {
        let step = self.build(parts);
        self.steps.insert(ticket, step);
    }

    /// Waits for a step.
    pub fn finish(&mut self, ticket: u64) -> Result<Vec<StepResult>> {
        let unknown = || Error::Input(format!("step {ticket} was never submitted"));
        let Started { hidden, outcomes } = self.steps.remove(&ticket).ok_or_else(unknown)??;
        hidden.wait()?;
        let result = |outcome| {
            Ok(match outcome {
                Outcome::Nothing => StepResult::None,
                Outcome::Logits(logits) => StepResult::Logits(logits.read()?),
                Outcome::Token(token) => {
                    StepResult::Token(token.read()?.first().copied().unwrap_or_default())
                }
            })
        };
        outcomes.into_iter().map(result).collect()
    }

    fn build(&mut self, parts: &[Part]) -> Result<Started> {
        let ids = self.ids(parts)?;
        let mut slots: Vec<Option<&mut Slot>> = self.slots.iter_mut().map(Some).collect();
        let (mut segments, mut choices, mut first) = (Vec::new(), Vec::new(), 0);
        for part in parts {
            let Some(Slot { caches, chosen }) = slots.get_mut(part.slot).and_then(Option::take)
            else {
                continue;
            };
            let rows = first..first + part.tokens.as_ref().map_or(1, Vec::len);
            first = rows.end;
            segments.push(Segment::new(rows.clone(), part.position, caches));
            choices.push((rows, part.output, chosen));
        }
        let hidden = self.model.forward(&ids, &mut segments)?;
        let mut outcomes = Vec::new();
        for (rows, output, chosen) in choices {
            let last = rows.end - 1..rows.end;
            let logits = |rows| self.model.logits(&rows_of(&hidden, &rows)?);
            *chosen = None;
            outcomes.push(match output {
                StepOutput::None => Outcome::Nothing,
                StepOutput::LastLogits => Outcome::Logits(logits(last)?),
                StepOutput::AllLogits => Outcome::Logits(logits(rows)?),
                StepOutput::Greedy => {
                    let logits = choosable(logits(last)?, &self.suppressed)?;
                    let token = logits.argmax()?;
                    *chosen = Some(token.try_clone()?);
                    Outcome::Token(token)
                }
                // Chosen on this thread, which waits for the logits. The caller does not wait.
                StepOutput::Sample(draw) => {
                    let mut row = logits(last)?.read::<f32>()?;
                    sampling::suppress(&mut row, &self.suppressed);
                    let token = draw.choose(&row)?;
                    let token = Array::new(bytemuck::bytes_of(&token), &[1], Dtype::U32)?;
                    *chosen = Some(token.try_clone()?);
                    Outcome::Token(token)
                }
            });
        }
        let results = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Nothing => None,
            Outcome::Logits(array) | Outcome::Token(array) => Some(array),
        });
        let wanted: Vec<&Array> = std::iter::once(&hidden).chain(results).collect();
        async_eval(&wanted)?;
        Ok(Started { hidden, outcomes })
    }

    /// Token ids of all parts one after another, u32 `[rows]`. Chosen tokens stay on the device.
    fn ids(&self, parts: &[Part]) -> Result<Array> {
        let ids = |part: &Part| match &part.tokens {
            Some(tokens) => Array::new(bytemuck::cast_slice(tokens), &[tokens.len()], Dtype::U32),
            None => match &self.slots[part.slot].chosen {
                Some(token) => token.try_clone(),
                None => Err(Error::Device("MLX: the step before chose no token".into())),
            },
        };
        match parts {
            [part] => ids(part),
            parts => Array::concatenate(&parts.iter().map(ids).collect::<Result<Vec<_>>>()?),
        }
    }
}

/// Logits `[1, vocab]`, with those of suppressed tokens set to −∞.
fn choosable(logits: Array, suppressed: &[u32]) -> Result<Array> {
    if suppressed.is_empty() {
        return Ok(logits);
    }
    let shape = logits.shape();
    let mut mask = vec![0f32; shape.iter().product()];
    sampling::suppress(&mut mask, suppressed);
    logits.add(&Array::new(bytemuck::cast_slice(&mask), &shape, Dtype::F32)?)
}
