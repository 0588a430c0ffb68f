//! The open sequences and their lengths, which all backends manage with this code.

use std::collections::BTreeMap;

use crate::backend::{SequenceId, SequenceStep, StepInput, StepOutput};
use crate::error::{Error, Result};
use crate::model::config::{AttentionKind, LayerConfig, ModelConfig};
use crate::model::kv::cache_capacity;
use crate::model::weights::LoadOptions;

/// An open sequence.
#[derive(Debug, Clone, Copy)]
pub struct Sequence {
    /// Its place in the KV caches.
    pub slot: usize,
    /// Positions held, submitted steps included.
    pub len: usize,
    /// The largest length since it was empty. A ring has lost all entries that are more than its
    /// capacity before this position.
    longest: usize,
    /// Its last step chose a token.
    has_previous: bool,
}

/// The open sequences of a backend, and checks of steps.
#[derive(Debug)]
pub struct Sequences {
    vocab_size: usize,
    pub context_length: usize,
    pub max_sequences: usize,
    pub max_step_tokens: usize,
    /// Window and capacity of the ring of each sliding layer.
    rings: Vec<(usize, usize)>,
    open: BTreeMap<usize, Sequence>,
    free_slots: Vec<usize>,
    next_id: usize,
}

impl Sequences {
    /// Most sequences that can be open. Each may have a row of a step. Devices need not run more
    /// workgroups in one dimension.
    pub const MOST: usize = 65535;

    /// Errors: the context or the number of sequences is zero, or more than [`Sequences::MOST`].
    pub fn new(
        config: &ModelConfig,
        options: &LoadOptions,
        max_step_tokens: usize,
    ) -> Result<Self> {
        let LoadOptions { context_length, max_sequences, .. } = *options;
        if context_length == 0 || max_sequences == 0 {
            return Err(Error::Input(
                "context length and number of sequences must be at least 1".into(),
            ));
        }
        if max_sequences > Self::MOST {
            let most = Self::MOST;
            return Err(Error::Input(format!(
                "{max_sequences} sequences; at most {most} can be open at once"
            )));
        }
        let ring = |layer: &LayerConfig| match layer.attention {
            AttentionKind::Sliding { window } => {
                Some((window, cache_capacity(layer, context_length, max_step_tokens)))
            }
            AttentionKind::Full => None,
        };
        Ok(Sequences {
            vocab_size: config.vocab_size,
            context_length,
            max_sequences,
            max_step_tokens,
            rings: config.layers.iter().filter_map(ring).collect(),
            open: BTreeMap::new(),
            free_slots: (0..max_sequences).rev().collect(),
            next_id: 0,
        })
    }

    /// See [`super::Backend::open_sequence`].
    pub fn open(&mut self) -> Result<SequenceId> {
        let slot = self.free_slots.pop().ok_or_else(|| {
            Error::Input(format!("all {} sequences are in use", self.max_sequences))
        })?;
        let id = self.next_id;
        self.next_id += 1;
        self.open.insert(id, Sequence { slot, len: 0, longest: 0, has_previous: false });
        Ok(SequenceId(id))
    }

    /// See [`super::Backend::close_sequence`].
    pub fn close(&mut self, id: SequenceId) {
        self.free_slots.extend(self.open.remove(&id.0).map(|sequence| sequence.slot));
    }

    /// Errors if the sequence is not open.
    pub fn get(&self, id: SequenceId) -> Result<Sequence> {
        self.open
            .get(&id.0)
            .copied()
            .ok_or_else(|| Error::Input(format!("sequence {} is not open", id.0)))
    }

    /// Positions that a sequence holds, 0 if it is not open.
    pub fn len(&self, id: SequenceId) -> usize {
        self.open.get(&id.0).map_or(0, |sequence| sequence.len)
    }

    /// See [`super::Backend::truncate`].
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> Result<()> {
        let Sequence { len: held, longest, .. } = self.get(id)?;
        if len > held {
            return Err(Error::Input(format!("cannot truncate {held} positions to {len}")));
        }
        // The next query is at position `len`, and sees keys back to `len + 1 − window`.
        let lost = |&(window, capacity): &(usize, usize)| {
            (len + 1).saturating_sub(window) < longest.saturating_sub(capacity)
        };
        if len > 0 && self.rings.iter().any(lost) {
            return Err(Error::Input(format!(
                "the window before position {len} is no longer held"
            )));
        }
        if let Some(sequence) = self.open.get_mut(&id.0).filter(|_| len < held) {
            sequence.len = len;
            sequence.has_previous = false;
            if len == 0 {
                sequence.longest = 0;
            }
        }
        Ok(())
    }

    /// Whether a step is valid, see [`super::Backend::submit`].
    pub fn check(&self, step: &[SequenceStep<'_>]) -> Result<()> {
        if step.is_empty() {
            return Err(Error::Input("a step without sequences".into()));
        }
        let mut total = 0usize;
        for (index, part) in step.iter().enumerate() {
            let (id, sequence) = (part.sequence.0, self.get(part.sequence)?);
            if step[..index].iter().any(|earlier| earlier.sequence == part.sequence) {
                return Err(Error::Input(format!("sequence {id} is twice in one step")));
            }
            let tokens = match part.input {
                StepInput::Tokens([]) => {
                    return Err(Error::Input(format!("no tokens for sequence {id}")));
                }
                StepInput::Tokens(tokens) => tokens,
                StepInput::Previous if sequence.has_previous => &[0],
                StepInput::Previous => {
                    return Err(Error::Input(format!(
                        "the previous step of sequence {id} chose no token"
                    )));
                }
            };
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
                return Err(Error::Input(format!(
                    "token {token} is not in the vocabulary of {}",
                    self.vocab_size
                )));
            }
            if tokens.len() > self.context_length - sequence.len {
                let (wanted, context) =
                    (tokens.len().saturating_add(sequence.len), self.context_length);
                return Err(Error::Input(format!(
                    "{wanted} tokens do not fit in a context of {context}"
                )));
            }
            if let StepOutput::Sample(draw) = part.output {
                draw.validate()?;
            }
            total += tokens.len();
        }
        if total > self.max_step_tokens {
            let most = self.max_step_tokens;
            return Err(Error::Input(format!(
                "a step of {total} tokens; at most {most} are possible"
            )));
        }
        Ok(())
    }

    /// Records a valid step as submitted.
    pub fn advance(&mut self, step: &[SequenceStep<'_>]) {
        for part in step {
            let Some(sequence) = self.open.get_mut(&part.sequence.0) else { continue };
            sequence.len += part.input.count();
            sequence.longest = sequence.longest.max(sequence.len);
            sequence.has_previous = part.output.chooses();
        }
    }
}
