//! A step of the model: its rows, its size, and the shape that chooses its kernels.

use crate::gpu::device::{gpu::Gpu, grid::StepSize, tuning::KernelTarget};
use crate::gpu::kernels::MatvecQ8Split;
use crate::model::{config::ModelConfig, weights::LoadOptions};

/// Most bytes of logits for one pass of the lm_head, to bound the buffer that holds them.
const LOGIT_BYTES: usize = 64 << 20;

/// One token of a step, as kernels see it (`Row` in shaders/shared/step.wgsl).
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(in crate::gpu) struct StepRow {
    pub token: u32,
    pub position: u32,
    /// The sequence's place in the KV caches.
    pub slot: u32,
    pub unused: u32,
}

impl StepRow {
    /// A value of `token` that means the sequence's last token chosen on the device.
    pub const TAKE_SAMPLED: u32 = u32::MAX;
}

/// The shape of a step, which chooses the kernels of matrices and attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::gpu) enum StepShape {
    /// One token: matrix-vector products.
    Decode,
    /// One token each of at most `n` sequences. All share one read of the weights.
    DecodeBatch(usize),
    /// At most `n` tokens, several of which belong to one sequence.
    ShortPrefill(usize),
    /// Many tokens of several sequences.
    MixedBatch,
    /// Many tokens of one sequence. Attention computes them in tiles.
    Prefill,
}

impl StepShape {
    /// The shape of a step of these rows. Steps of up to `max_decode_rows` rows run matrix-vector
    /// products.
    pub fn of_rows(rows: &[StepRow], max_decode_rows: usize) -> Self {
        let mut slots: Vec<u32> = rows.iter().map(|row| row.slot).collect();
        // A sequence's rows are consecutive.
        slots.dedup();
        let (sequences, is_small) = (slots.len(), rows.len() <= max_decode_rows);
        match rows.len() {
            1 => StepShape::Decode,
            count if is_small && sequences == count => {
                StepShape::DecodeBatch(MatvecQ8Split::room(count))
            }
            count if is_small => StepShape::ShortPrefill(MatvecQ8Split::room(count)),
            _ if sequences > 1 => StepShape::MixedBatch,
            _ => StepShape::Prefill,
        }
    }

    /// The shape of the output head for this number of output rows.
    pub fn of_outputs(outputs: usize, max_decode_rows: usize) -> Self {
        match outputs {
            0 | 1 => StepShape::Decode,
            count if count <= max_decode_rows => StepShape::DecodeBatch(MatvecQ8Split::room(count)),
            _ => StepShape::MixedBatch,
        }
    }

    /// Whether products are matrix-vector products.
    pub fn is_small(self) -> bool {
        self.batch_rows().is_some()
    }

    /// Rows of matrix-vector products; `None` for matrix products.
    pub fn batch_rows(self) -> Option<usize> {
        match self {
            StepShape::Decode => Some(1),
            StepShape::DecodeBatch(rows) | StepShape::ShortPrefill(rows) => Some(rows),
            StepShape::MixedBatch | StepShape::Prefill => None,
        }
    }
}

/// The largest number of tokens in a step for which matrix-vector products run.
pub(in crate::gpu) fn max_decode_rows(target: &KernelTarget) -> usize {
    match MatvecQ8Split::runs_on(target) {
        true => MatvecQ8Split::MOST_ROWS,
        // A product takes as long for a vector register of rows as for one row.
        false if target.tuning.row_per_invocation => 1,
        false => 4,
    }
}

/// Tokens of the largest step.
pub(in crate::gpu) fn max_step_tokens(gpu: &Gpu, options: &LoadOptions) -> usize {
    gpu.tuning().max_step_tokens.min(options.context_length).max(options.max_sequences)
}

/// Rows of logits for one pass of the head, if steps have `rows` rows.
pub(in crate::gpu) fn logit_rows(
    config: &ModelConfig,
    options: &LoadOptions,
    rows: usize,
) -> usize {
    (LOGIT_BYTES / (4 * config.vocab_size)).clamp(1, rows.max(options.max_sequences))
}

/// The numbers that decide the grids of the layers' dispatches.
pub(in crate::gpu) fn step_size(rows: &[StepRow]) -> StepSize {
    let keys = rows.iter().map(|row| row.position as usize + 1).max().unwrap_or(0);
    StepSize { rows: rows.len(), outputs: 0, keys }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_the_number_of_rows_and_of_sequences() {
        let of = |slots: &[u32]| {
            let row = |&slot| StepRow { token: 0, position: 0, slot, unused: 0 };
            StepShape::of_rows(&slots.iter().map(row).collect::<Vec<_>>(), 4)
        };
        assert_eq!(of(&[3]), StepShape::Decode);
        assert_eq!(of(&[0, 1, 2]), StepShape::DecodeBatch(4));
        assert_eq!(of(&[0, 1, 1]), StepShape::ShortPrefill(4));
        assert_eq!(of(&[2; 5]), StepShape::Prefill);
        assert_eq!(of(&[0, 1, 1, 1, 1]), StepShape::MixedBatch);
        let shapes = [0, 1, 2, 5].map(|outputs| StepShape::of_outputs(outputs, 4));
        let small = [StepShape::Decode, StepShape::Decode, StepShape::DecodeBatch(2)];
        assert_eq!(shapes[..3], small);
        assert_eq!(shapes[3], StepShape::MixedBatch);
    }
}
