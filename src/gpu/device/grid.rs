//! The number of workgroups of a dispatch, which depends on the step.

/// One dimension of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// This many workgroups.
    Fixed(u32),
    /// One workgroup for each tile of this many rows (tokens) of the step.
    Rows(u32),
    /// One for each output row (a position whose logits are wanted).
    Outputs,
    /// One for each tile of this many output rows.
    OutputTiles(u32),
    /// One for each part of the keys that a query sees. A part has at least `smallest` keys, and
    /// there are at most `most` parts.
    KeyParts { smallest: u32, most: u32, window: Option<u32> },
    /// The most tiles that the pairs of a row and one of its `top_k` experts can need. A tile has
    /// at most `tile` pairs, all of one of `experts`.
    ExpertTiles { experts: u32, top_k: u32, tile: u32 },
}

/// What decides the grids of a step's dispatches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepSize {
    /// Tokens.
    pub rows: usize,
    /// Positions whose logits are wanted.
    pub outputs: usize,
    /// Positions of the longest sequence, this step included.
    pub keys: usize,
}

impl Extent {
    pub(in crate::gpu) fn count(self, step: StepSize) -> u32 {
        let (rows, outputs) = (step.rows as u32, step.outputs as u32);
        match self {
            Extent::Fixed(count) => count,
            Extent::Rows(tile) => rows.div_ceil(tile),
            Extent::Outputs => outputs,
            Extent::OutputTiles(tile) => outputs.div_ceil(tile),
            Extent::KeyParts { smallest, most, window } => {
                let seen = (step.keys as u32).min(window.unwrap_or(u32::MAX));
                seen.div_ceil(smallest).min(most)
            }
            Extent::ExpertTiles { experts, top_k, tile } => {
                let pairs = rows * top_k;
                let used = pairs.min(experts);
                used + (pairs - used) / tile
            }
        }
    }
}

/// Workgroups of a dispatch: x, y, z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid(pub [Extent; 3]);

impl Grid {
    /// `count` workgroups, folded over x and y because one dimension is limited to 65535. A kernel
    /// with this grid numbers them `group.x + group.y · groups.x` and ignores those past the end.
    pub fn folded(count: usize, z: Extent) -> Self {
        let count = count as u32;
        let y = count.div_ceil(65535).max(1);
        Grid([Extent::Fixed(count.div_ceil(y)), Extent::Fixed(y), z])
    }

    /// One workgroup a row.
    pub fn rows() -> Self {
        Grid([Extent::Rows(1), Extent::Fixed(1), Extent::Fixed(1)])
    }

    /// One workgroup an output row.
    pub fn outputs() -> Self {
        Grid([Extent::Outputs, Extent::Fixed(1), Extent::Fixed(1)])
    }
}
