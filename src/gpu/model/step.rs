//! A step of the model: its rows, its size, and the shape that chooses its kernels.

use crate::gpu::device::{gpu::Gpu, grid::StepSize, tuning::KernelTarget};
use crate::gpu::kernels::{MatmulCoopRows, MatvecQ8Split};
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

/// The largest steps whose products read the weights once for all rows. Steps are padded to rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) struct RowLimits {
    /// Rows of the largest room of matrix-vector products.
    matvec: usize,
    /// Rows of the largest room of products on cooperative matrices; 0 where these are missing.
    coop: usize,
}

impl RowLimits {
    pub fn of(target: &KernelTarget) -> Self {
        let matvec = match MatvecQ8Split::runs_on(target) {
            true => MatvecQ8Split::MOST_ROWS,
            // A product takes as long for a vector register of rows as for one row.
            false if target.tuning.row_per_invocation => 1,
            false => 4,
        };
        let coop = if MatmulCoopRows::runs_on(target) { MatmulCoopRows::ROWS[1] } else { 0 };
        RowLimits { matvec, coop }
    }

    /// The number of rows that kernels for `rows` rows are made for; `None` for tiles of many rows.
    fn room(self, rows: usize) -> Option<usize> {
        match rows {
            _ if rows <= self.matvec => Some(MatvecQ8Split::room(rows)),
            _ if rows <= self.coop => Some(MatmulCoopRows::room(rows)),
            _ => None,
        }
    }

    /// Every room for steps of up to `rows` rows.
    pub fn rooms(self, rows: usize) -> Vec<usize> {
        let mut rooms: Vec<usize> = (1..=rows).map_while(|rows| self.room(rows)).collect();
        rooms.dedup();
        rooms
    }

    /// The shapes of steps of 2 up to `rows` rows with their heads, for up to `sequences`
    /// sequences.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn shapes(self, rows: usize, sequences: usize) -> Vec<(StepShape, StepShape)> {
        let rooms = self.rooms(rows).into_iter().filter(|room| *room > 1);
        let of_room = |room| {
            let prompt = match self.attends_in_tiles(room) {
                true => StepShape::ShortPrompt(room),
                false => StepShape::ShortPrefill(room),
            };
            let batch = StepShape::DecodeBatch(room);
            let several = [(batch, batch), (StepShape::ShortPrefill(room), batch)];
            // Rooms halve, so a room for more than half as many sequences is of use.
            let shared = several.into_iter().filter(move |_| room < 2 * sequences);
            [(prompt, StepShape::Decode)].into_iter().chain(shared)
        };
        rooms.flat_map(of_room).collect()
    }

    /// Whether attention of `rows` tokens of one sequence computes several tokens together. That
    /// reads keys and values once for them, but fills a large device with many tokens only.
    fn attends_in_tiles(self, rows: usize) -> bool {
        rows > self.matvec
    }
}

/// The shape of a step, which chooses the kernels of matrices and attention. The number is a room,
/// see [`RowLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::gpu) enum StepShape {
    /// One token: matrix-vector products.
    Decode,
    /// One token each of at most `n` sequences. All share one read of the weights.
    DecodeBatch(usize),
    /// At most `n` tokens, several of which belong to one sequence.
    ShortPrefill(usize),
    /// At most `n` tokens of one sequence. Attention computes them in tiles where it can.
    ShortPrompt(usize),
    /// Many tokens of several sequences.
    MixedBatch,
    /// Many tokens of one sequence. Attention computes them in tiles.
    Prefill,
}

impl StepShape {
    /// The shape of a step of these rows.
    pub fn of_rows(rows: &[StepRow], limits: RowLimits) -> Self {
        let mut slots: Vec<u32> = rows.iter().map(|row| row.slot).collect();
        // A sequence's rows are consecutive.
        slots.dedup();
        let (sequences, count) = (slots.len(), rows.len());
        match limits.room(count) {
            _ if count == 1 => StepShape::Decode,
            Some(room) if sequences == count => StepShape::DecodeBatch(room),
            Some(room) if sequences == 1 && limits.attends_in_tiles(count) => {
                StepShape::ShortPrompt(room)
            }
            Some(room) => StepShape::ShortPrefill(room),
            None if sequences > 1 => StepShape::MixedBatch,
            None => StepShape::Prefill,
        }
    }

    /// The shape of the output head for this number of output rows.
    pub fn of_outputs(outputs: usize, limits: RowLimits) -> Self {
        match limits.room(outputs) {
            _ if outputs <= 1 => StepShape::Decode,
            Some(room) => StepShape::DecodeBatch(room),
            None => StepShape::MixedBatch,
        }
    }

    /// Whether products read the weights once for all rows.
    pub fn is_small(self) -> bool {
        self.room().is_some()
    }

    /// Rows that the kernels are made for; `None` for tiles of many rows.
    pub fn room(self) -> Option<usize> {
        match self {
            StepShape::Decode => Some(1),
            StepShape::DecodeBatch(room)
            | StepShape::ShortPrefill(room)
            | StepShape::ShortPrompt(room) => Some(room),
            StepShape::MixedBatch | StepShape::Prefill => None,
        }
    }

    /// Whether all tokens are of one sequence, so that attention may compute several together.
    pub fn is_one_prompt(self) -> bool {
        matches!(self, StepShape::ShortPrompt(_) | StepShape::Prefill)
    }

    /// Whether a token may need the keys of another token of the step.
    pub fn needs_own_keys(self) -> bool {
        !matches!(self, StepShape::Decode | StepShape::DecodeBatch(_))
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
    use StepShape as S;

    fn of(slots: &[u32], limits: RowLimits) -> StepShape {
        let row = |&slot| StepRow { token: 0, position: 0, slot, unused: 0 };
        StepShape::of_rows(&slots.iter().map(row).collect::<Vec<_>>(), limits)
    }

    #[test]
    fn steps_of_several_sequences_are_prepared_only_if_there_may_be_several() {
        let limits = RowLimits { matvec: 8, coop: 64 };
        let alone = [S::ShortPrefill(2), S::ShortPrefill(4), S::ShortPrefill(8)]
            .into_iter()
            .chain([16, 32, 64].map(S::ShortPrompt))
            .map(|shape| (shape, S::Decode));
        assert_eq!(limits.shapes(512, 1), alone.collect::<Vec<_>>());
        let batches = |sequences| {
            let shapes = limits.shapes(512, sequences).into_iter();
            shapes.filter(|(shape, _)| matches!(shape, S::DecodeBatch(_))).count()
        };
        assert_eq!([1, 2, 3, 8, 16, 17, 99].map(batches), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(RowLimits { matvec: 1, coop: 0 }.shapes(512, 9), []);
    }

    #[test]
    fn shapes_follow_the_number_of_rows_and_of_sequences() {
        let limits = RowLimits { matvec: 4, coop: 0 };
        assert_eq!(of(&[3], limits), S::Decode);
        assert_eq!(of(&[0, 1, 2], limits), S::DecodeBatch(4));
        assert_eq!(of(&[0, 1, 1], limits), S::ShortPrefill(4));
        assert_eq!(of(&[2; 5], limits), S::Prefill);
        assert_eq!(of(&[0, 1, 1, 1, 1], limits), S::MixedBatch);
        let shapes = [0, 1, 2, 5].map(|outputs| StepShape::of_outputs(outputs, limits));
        assert_eq!(shapes, [S::Decode, S::Decode, S::DecodeBatch(2), S::MixedBatch]);
        assert_eq!(limits.rooms(512), [1, 2, 4]);
        assert_eq!(limits.rooms(2), [1, 2]);
    }

    #[test]
    fn cooperative_matrices_add_rooms_up_to_64() {
        let limits = RowLimits { matvec: 8, coop: 64 };
        let different = |count: u32| (0..count).collect::<Vec<_>>();
        let mixed = |count: u32| [different(count - 1), vec![count - 2]].concat();
        let table = [
            (8, S::DecodeBatch(8), S::ShortPrefill(8), S::ShortPrefill(8)),
            (9, S::DecodeBatch(16), S::ShortPrefill(16), S::ShortPrompt(16)),
            (16, S::DecodeBatch(16), S::ShortPrefill(16), S::ShortPrompt(16)),
            (17, S::DecodeBatch(32), S::ShortPrefill(32), S::ShortPrompt(32)),
            (64, S::DecodeBatch(64), S::ShortPrefill(64), S::ShortPrompt(64)),
            (65, S::MixedBatch, S::MixedBatch, S::Prefill),
        ];
        for (count, batch, of_several, of_one) in table {
            assert_eq!(of(&different(count), limits), batch);
            assert_eq!(of(&mixed(count), limits), of_several);
            assert_eq!(of(&vec![7; count as usize], limits), of_one);
            let head = StepShape::of_outputs(count as usize, limits);
            assert_eq!(head, batch);
        }
        assert_eq!(limits.rooms(512), [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(limits.rooms(17), [1, 2, 4, 8, 16, 32]);
    }

    #[test]
    fn a_device_decides_the_limits() {
        use crate::gpu::device::adapter::AdapterFacts;
        let of = |options: &str| {
            let card = AdapterFacts::example_card();
            RowLimits::of(&KernelTarget::choose(&card, &options.parse().unwrap()).unwrap())
        };
        assert_eq!(of("dp4a=on"), RowLimits { matvec: 8, coop: 64 });
        assert_eq!(of("dp4a=off"), RowLimits { matvec: 4, coop: 64 });
        assert_eq!(of("dp4a=on,coop=off"), RowLimits { matvec: 8, coop: 0 });
        assert_eq!(of("dp4a=off,coop=off,row_per_invocation=on").matvec, 1);
    }
}
