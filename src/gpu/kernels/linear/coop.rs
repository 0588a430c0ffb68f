//! Products of many tokens on cooperative matrices.

use crate::gpu::device::adapter::Coop;
use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::epilogue::ROW_TILE;
use crate::gpu::kernels::linear::products::Linear;
use crate::gpu::kernels::wgsl::Wgsl;
use crate::gpu::kernels::{Cost, Kernel, stride};

/// Bindings: data, scales, x as
/// [`ActivationFormat::F16Tiled`](crate::gpu::kernels::ActivationFormat::F16Tiled), y `[splits,
/// rows, y_stride]`, step. Rows of y up to the next multiple of the matrices' size are written.
#[derive(Debug, Clone, Copy)]
pub struct MatmulCoop {
    pub linear: Linear,
    /// Rows of the matrix before those of `linear`.
    pub first_row: usize,
    /// Rows that the activations' buffer has room for.
    pub m_stride: usize,
    /// Workgroups that share the columns of a tile; the sum over their results is the product.
    pub splits: usize,
    /// Distance from one split's results to the next one's, in elements.
    pub split_stride: usize,
}

impl MatmulCoop {
    /// Whether the kernel can make this product. Int weights must have groups of 32 or more, or of
    /// 16 with 5 to 8 bits and no offsets. Results must be aligned to 16 bytes. For matrices of 16
    /// × 16 they must be whole blocks of 16.
    pub fn can_run(target: &KernelTarget, linear: &Linear) -> bool {
        let whole = match target.variant.coop {
            None => return false,
            Some(Coop::Sixteen) => 16,
            Some(Coop::Eight) => 1,
        };
        Linear::supports_q8(linear.format)
            && linear.rows.is_multiple_of(whole)
            && linear.y_stride.is_multiple_of(4)
            && linear.y_offset.is_multiple_of(4)
            && linear.softcap.is_none()
            && !linear.over_outputs
    }

    /// Columns of a block of its activations.
    pub const BLOCK: usize = 32;
    /// The largest result of [`MatmulCoop::splits`].
    pub const MOST_SPLITS: usize = 3;

    /// The number of last rows of a matrix that are a product of their own, and the splits for it.
    /// The other rows fill whole rounds of workgroups when the step has `m` rows of activations.
    /// Without splits, the last rows would keep few workgroups busy for another round. `None` where
    /// that costs little.
    pub fn tail(target: &KernelTarget, rows: usize, m: usize) -> Option<(usize, usize)> {
        let at_once = target.tuning.coop_round?;
        let (tiles, m_tiles) = (rows.div_ceil(ROW_TILE), m.div_ceil(ROW_TILE));
        let left = (tiles * m_tiles % at_once).div_ceil(m_tiles);
        let is_small = left > 0 && left * m_tiles * 4 <= at_once && tiles * m_tiles > at_once;
        is_small.then(|| (rows - (tiles - left) * ROW_TILE, at_once / (left * m_tiles)))
    }

    /// Splits that fill a large device if the rows alone do not.
    pub fn splits(rows: usize, cols: usize) -> usize {
        if rows <= 8192 && cols >= 4096 { Self::MOST_SPLITS } else { 1 }
    }

    /// Rows of activations and of weights for one workgroup.
    fn tile(target: &KernelTarget) -> (usize, usize) {
        match target.variant.coop {
            Some(Coop::Eight) => (32, 128),
            _ => (ROW_TILE, ROW_TILE),
        }
    }
}

impl Kernel for MatmulCoop {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let linear = &self.linear;
        let wgsl = Wgsl::default()
            .uint("ROWS", linear.rows)
            .uint("FIRST_ROW", self.first_row)
            .uint("COLS", stride(linear.cols))
            .uint("Y_STRIDE", linear.y_stride)
            .uint("Y_OFFSET", linear.y_offset)
            .uint("M_STRIDE", self.m_stride)
            .uint("SPLITS", self.splits)
            .uint("SPLIT_STRIDE", self.split_stride)
            .weights(linear.format, linear.cols, linear.interleaved16);
        wgsl.kernel(match target.variant.coop {
            Some(Coop::Eight) => "shaders/linear/matmul_coop8.wgsl",
            _ => "shaders/linear/matmul_coop.wgsl",
        })
    }

    fn cost(&self) -> Cost {
        self.linear.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        // Row tiles vary fastest, so that consecutive workgroups share weights.
        let (m, n) = Self::tile(target);
        let tiles = self.linear.rows.div_ceil(n) as u32;
        Grid([Extent::Rows(m as u32), Extent::Fixed(tiles), Extent::Fixed(self.splits as u32)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::device::adapter::AdapterFacts;

    fn target(options: &str) -> KernelTarget {
        let options = options.parse().expect("options");
        KernelTarget::choose(&AdapterFacts::example_card(), &options).expect("a card has them")
    }

    #[test]
    fn only_a_small_rest_of_a_round_is_a_tail() {
        let tail = |rows| MatmulCoop::tail(&target(""), rows, 512);
        // 336 tiles of rows by 4: 1344 workgroups, 24 more than five rounds.
        assert_eq!(tail(43008), Some((768, 11)));
        assert_eq!(tail(43008 - 768), None, "whole rounds");
        assert_eq!(tail(16384), None, "a round that is nearly whole");
        assert_eq!(tail(1024), None, "less than a round");
        assert_eq!(MatmulCoop::tail(&target("coop=off"), 43008, 512), None, "another device");
    }
}
