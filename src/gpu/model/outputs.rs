//! The outputs of a step: the rows of the output head, and the places of their results.

use std::ops::Range;

use crate::backend::{SequenceStep, StepOutput, StepResult};
use crate::error::{Error, Result};
use crate::gpu::{kernels::DrawWords, model::step::StepRow};
use crate::sampling::Draw;

/// The place of a sequence's results in the readback buffer, in words.
pub(in crate::gpu) enum ReadbackSlot {
    None,
    Logits { first: usize, words: usize },
    Token { word: usize },
}

impl ReadbackSlot {
    /// The result. Errors if no token could be chosen.
    pub fn result(&self, words: &[u32]) -> Result<StepResult> {
        match *self {
            ReadbackSlot::None => Ok(StepResult::None),
            ReadbackSlot::Token { word } if words[word] == u32::MAX => Err(Error::Device(
                "the model computed a logit of NaN or infinity, or none that is finite".into(),
            )),
            ReadbackSlot::Token { word } => Ok(StepResult::Token(words[word])),
            ReadbackSlot::Logits { first, words: count } => {
                Ok(StepResult::Logits(bytemuck::cast_slice(&words[first..first + count]).to_vec()))
            }
        }
    }
}

/// Output rows of one pass of the head.
pub(in crate::gpu) struct OutputBlock {
    /// Rows of the step.
    pub rows: Vec<u32>,
    pub usage: LogitsUse,
}

/// The use of logits.
pub(in crate::gpu) enum LogitsUse {
    /// The host reads them.
    Logits,
    /// The device chooses the most likely token.
    Greedy,
    /// The device draws a token for each row.
    Sample(Vec<DrawWords>),
}

/// A sequence whose token the device chooses.
struct SampledRow {
    row: u32,
    slot: u32,
    /// `None`: the most likely one.
    draw: Option<Draw>,
}

/// The outputs of a step. The readback buffer holds all logits, then all tokens.
#[derive(Default)]
pub(in crate::gpu) struct OutputRequest {
    outputs: Vec<StepOutput>,
    /// Row ranges whose logits are read back, per sequence.
    logit_ranges: Vec<Range<u32>>,
    pub logit_rows: usize,
    sampled: Vec<SampledRow>,
}

impl OutputRequest {
    pub fn new(step: &[SequenceStep<'_>], rows: &[StepRow]) -> Self {
        let mut request = OutputRequest::default();
        let mut first = 0u32;
        for part in step {
            let end = first + part.input.count() as u32;
            let (row, slot) = (end - 1, rows[first as usize].slot);
            let range = match part.output {
                StepOutput::AllLogits => first..end,
                StepOutput::LastLogits => end - 1..end,
                StepOutput::None | StepOutput::Greedy | StepOutput::Sample(_) => end..end,
            };
            match part.output {
                StepOutput::Greedy => request.sampled.push(SampledRow { row, slot, draw: None }),
                StepOutput::Sample(draw) => {
                    request.sampled.push(SampledRow { row, slot, draw: Some(draw) })
                }
                StepOutput::None | StepOutput::LastLogits | StepOutput::AllLogits => {}
            }
            request.logit_rows += range.len();
            request.logit_ranges.push(range);
            request.outputs.push(part.output);
            first = end;
        }
        request
    }

    /// Output rows in passes of at most `most`. The rows whose logits are read back come first.
    pub fn blocks(&self, most: usize) -> Vec<OutputBlock> {
        let logit_rows: Vec<u32> = self.logit_ranges.iter().cloned().flatten().collect();
        let logits = logit_rows
            .chunks(most)
            .map(|rows| OutputBlock { rows: rows.to_vec(), usage: LogitsUse::Logits });
        let choice = |sampled: &[SampledRow]| {
            let rows = sampled.iter().map(|row| row.row).collect();
            let words = |row: &SampledRow| row.draw.map_or(DrawWords::LIKELIEST, DrawWords::from);
            let usage = match sampled.iter().all(|row| row.draw.is_none()) {
                true => LogitsUse::Greedy,
                false => LogitsUse::Sample(sampled.iter().map(words).collect()),
            };
            OutputBlock { rows, usage }
        };
        logits.chain(self.sampled.chunks(most).map(choice)).collect()
    }

    /// Slots of the sequences whose token the device chooses, in the order of the tokens in the
    /// readback buffer.
    pub fn sampled_slots(&self) -> impl Iterator<Item = u32> {
        self.sampled.iter().map(|row| row.slot)
    }

    /// Words of the readback buffer.
    pub fn words(&self, vocab: usize) -> usize {
        self.logit_rows * vocab + self.sampled.len()
    }

    pub fn slots(&self, vocab: usize) -> Vec<ReadbackSlot> {
        let (mut first, mut word) = (0, self.logit_rows * vocab);
        let slot = |(output, range): (&StepOutput, &Range<u32>)| match output {
            StepOutput::None => ReadbackSlot::None,
            StepOutput::Greedy | StepOutput::Sample(_) => {
                word += 1;
                ReadbackSlot::Token { word: word - 1 }
            }
            StepOutput::LastLogits | StepOutput::AllLogits => {
                let words = range.len() * vocab;
                first += words;
                ReadbackSlot::Logits { first: first - words, words }
            }
        };
        self.outputs.iter().zip(&self.logit_ranges).map(slot).collect()
    }
}
