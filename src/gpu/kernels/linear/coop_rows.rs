//! Products of 9 to 64 rows of activations on cooperative matrices.

use crate::gpu::device::adapter::Coop;
use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::{CoopRows, CoopRowsShape, KernelTarget};
use crate::gpu::kernels::linear::products::Linear;
use crate::gpu::kernels::{Cost, Kernel};

/// Reads the weights once for up to `m` rows of activations, on matrices of 16 × 16. Bindings:
/// data, scales, x as `ActivationFormat::F16Tiled` with `m` as its `m_stride`, y
/// `[splits, rows, y_stride]`, step. Only the step's rows of y are written.
#[derive(Debug, Clone, Copy)]
pub struct MatmulCoopRows {
    pub linear: Linear,
    /// Rows of activations: 16, 32 or 64. A step may have fewer.
    pub m: usize,
    /// Workgroups that share the columns of a tile; the sum over their results is the product.
    pub splits: usize,
    /// Distance from one split's results to the next one's, in elements.
    pub split_stride: usize,
}

impl MatmulCoopRows {
    /// The fewest and the most rows of activations.
    pub const ROWS: [usize; 2] = [16, 64];
    /// Columns of a block of its activations. Rows of a 16 × 16 matrix are contiguous then.
    pub const BLOCK: usize = 16;
    /// The largest result of [`MatmulCoopRows::splits`].
    pub const MOST_SPLITS: usize = 16;
    /// With fewer blocks of 32 columns, a workgroup of their own does not pay.
    const SMALLEST_SPLIT: usize = 16;

    /// Whether a device has the matrices, and these products are on.
    pub fn runs_on(target: &KernelTarget) -> bool {
        target.variant.coop == Some(Coop::Sixteen) && target.tuning.coop_batch
    }

    /// Whether the kernel can make this product. Int weights must have groups of 32 or more, or of
    /// 16 with 5 to 8 bits and no offsets.
    pub fn can_run(target: &KernelTarget, linear: &Linear) -> bool {
        Self::runs_on(target) && Linear::supports_q8(linear.format)
    }

    /// The number of activation rows `m` of the kernel for steps of `rows` rows.
    pub fn room(rows: usize) -> usize {
        let [fewest, most] = Self::ROWS;
        rows.next_power_of_two().clamp(fewest, most)
    }

    /// The number of workgroups over which to split the columns, so that enough workgroups run at
    /// the same time.
    pub fn splits(target: &KernelTarget, linear: &Linear, m: usize) -> usize {
        let CoopRows { shapes, split, .. } = Self::choices(target, m);
        let tiles = linear.rows.div_ceil(shapes[0].tile()).max(1);
        let blocks = linear.cols.div_ceil(32);
        let most = Self::MOST_SPLITS.min(blocks / Self::SMALLEST_SPLIT);
        (split / tiles).min(most).max(1)
    }

    fn choices(target: &KernelTarget, m: usize) -> CoopRows {
        let room = Self::room(m) / Self::ROWS[0];
        target.tuning.coop_rows[room.ilog2() as usize]
    }

    /// The largest tile if splits give enough workgroups, else the largest that gives enough.
    fn shape(&self, target: &KernelTarget) -> CoopRowsShape {
        let CoopRows { shapes, enough, .. } = Self::choices(target, self.m);
        let is_enough = |shape: &&CoopRowsShape| self.linear.rows >= enough * shape.tile();
        match self.splits {
            1 => *shapes.iter().find(is_enough).unwrap_or(&shapes[shapes.len() - 1]),
            _ => shapes[0],
        }
    }
}

impl Kernel for MatmulCoopRows {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let linear = &self.linear;
        let CoopRowsShape { workgroup, passes, column_teams } = self.shape(target);
        linear
            .sizes()
            .uint("M_TILES", self.m / 16)
            .uint("WORKGROUP", workgroup)
            .uint("PASSES", passes)
            .uint("COLUMN_TEAMS", column_teams)
            .uint("SPLITS", self.splits)
            .uint("SPLIT_STRIDE", self.split_stride)
            .bool("OVER_OUTPUTS", linear.over_outputs)
            .weights(linear.format, linear.cols, linear.interleaved16)
            .kernel("shaders/linear/matmul_coop_rows.wgsl")
    }

    fn cost(&self) -> Cost {
        self.linear.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        let tiles = self.linear.rows.div_ceil(self.shape(target).tile()) as u32;
        Grid([Extent::Fixed(tiles), Extent::Fixed(1), Extent::Fixed(self.splits as u32)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gpu::device::adapter::AdapterFacts, quant::PackFormat};

    fn target() -> KernelTarget {
        let options = "dp4a=on".parse().expect("options");
        KernelTarget::choose(&AdapterFacts::example_card(), &options).expect("a card has them")
    }

    fn linear(rows: usize, cols: usize) -> Linear {
        Linear {
            format: PackFormat::INT4,
            rows,
            cols,
            y_stride: rows,
            y_offset: 0,
            softcap: None,
            over_outputs: false,
            interleaved16: true,
        }
    }

    #[test]
    fn tiles_get_smaller_until_there_are_enough() {
        let target = target();
        let tile = |rows, splits| {
            let linear = linear(rows, 4096);
            MatmulCoopRows { linear, m: 16, splits, split_stride: 0 }.shape(&target).tile()
        };
        let CoopRows { shapes, enough, .. } = target.tuning.coop_rows[0];
        let tiles: Vec<usize> = shapes.iter().map(CoopRowsShape::tile).collect();
        assert!(tiles.is_sorted_by(|a, b| a >= b), "{tiles:?}");
        for &expected in &tiles {
            assert_eq!(tile(enough * expected, 1), expected);
        }
        assert_eq!(tile(16, 1), tiles[tiles.len() - 1]);
        assert_eq!(tile(16, 2), tiles[0], "splits give workgroups");
    }

    #[test]
    fn columns_are_split_as_far_as_that_gives_workgroups_with_enough_work() {
        let splits = |rows, cols| MatmulCoopRows::splits(&target(), &linear(rows, cols), 16);
        assert_eq!(splits(43008, 5376), 1);
        assert_eq!(splits(5376, 21504), 4);
        assert_eq!(splits(1536, 6144), 12);
        assert_eq!(splits(256, 512), 1);
        assert_eq!(splits(128, 1 << 20), MatmulCoopRows::MOST_SPLITS);
    }
}
