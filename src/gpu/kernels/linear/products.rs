//! Products of packed weights and activations.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::{KernelTarget, MatvecShape, is_narrow};
use crate::gpu::kernels::{Cost, Kernel, stride, wgsl::Wgsl};
use crate::quant::PackFormat;

/// The parameters that all kernels of a linear layer share. The weights are `rows × cols`: the
/// whole matrix or a run of its rows. Results go to `y[row, y_offset..]` of rows `y_stride` wide.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    pub format: PackFormat,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    pub y_stride: usize,
    pub y_offset: usize,
    /// Results become `c·tanh(result/c)`.
    pub softcap: Option<f32>,
    /// One workgroup row for each output row, instead of one for each tile of tokens.
    pub over_outputs: bool,
    /// Weights in the order of `weight_layout.wgsl`. Only int formats with whole runs of
    /// [`TILE_ROWS`] rows have it.
    pub interleaved16: bool,
}

/// Rows whose words alternate where weights are interleaved.
pub const TILE_ROWS: usize = 16;

impl Linear {
    /// Whether [`MatvecQ8`] can run this format. Offsets and int4's zero point need the sums of
    /// activations, which are kept for groups of 32.
    pub fn supports_q8(format: PackFormat) -> bool {
        format.layout().is_some_and(|(bits, group, offset)| group >= 32 || (bits > 4 && !offset))
    }

    pub(in crate::gpu::kernels) fn cost(&self) -> Cost {
        Cost {
            detail: format!("{}x{} {}", self.rows, self.cols, self.format),
            weight_bytes: (self.rows * self.format.row_bytes(self.cols)) as u64,
            multiplications_per_row: (self.rows * self.cols) as u64,
        }
    }

    fn constants(&self) -> Wgsl {
        self.sizes().weights(self.format, self.cols, self.interleaved16)
    }

    pub(in crate::gpu::kernels) fn sizes(&self) -> Wgsl {
        Wgsl::default()
            .uint("ROWS", self.rows)
            .uint("COLS", stride(self.cols))
            .optional_uint("Y_STRIDE", self.y_stride)
            .optional_uint("Y_OFFSET", self.y_offset)
            .optional_float("SOFTCAP", self.softcap.unwrap_or(0.0))
    }

    fn extent(&self, tile: u32) -> Extent {
        match self.over_outputs {
            true if tile == 1 => Extent::Outputs,
            true => Extent::OutputTiles(tile),
            false => Extent::Rows(tile),
        }
    }
}

/// The grid of the matrix-vector kernels.
fn matvec_grid(linear: &Linear, target: &KernelTarget) -> Grid {
    let teams = target
        .variant
        .subgroups
        .map_or(1, |size| MATVEC_WORKGROUP / (size as usize).min(MATVEC_WORKGROUP));
    Grid::folded(linear.rows.div_ceil(4 * teams), linear.extent(1))
}

const MATVEC_WORKGROUP: usize = 64;

/// Bindings: data, scales, x `[rows, stride(cols)]` f32, y.
#[derive(Debug, Clone, Copy)]
pub struct Matvec(pub Linear);

impl Kernel for Matvec {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        self.0.constants().reductions(target, MATVEC_WORKGROUP).kernel("shaders/linear/matvec.wgsl")
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        matvec_grid(&self.0, target)
    }
}

/// Bindings: data, scales, x as int8 `[rows, stride(cols)]`, its groups, y. Int formats only, see
/// [`Linear::supports_q8`].
#[derive(Debug, Clone, Copy)]
pub struct MatvecQ8(pub Linear);

impl Kernel for MatvecQ8 {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        self.0
            .constants()
            .reductions(target, MATVEC_WORKGROUP)
            .kernel("shaders/linear/matvec_q8.wgsl")
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        matvec_grid(&self.0, target)
    }
}

/// Bindings: data, scales, x `[rows, stride(cols)]` f32, y, step.
#[derive(Debug, Clone, Copy)]
pub struct Matmul(pub Linear);

impl Kernel for Matmul {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        // Unquantized weights must stay exact. Int weights lose nothing that f16 would keep.
        let is_f16 = target.variant.f16 && self.0.format.group().is_some();
        self.matmul_source(if is_f16 { "real_f16" } else { "real_f32" })
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Fixed(self.0.rows.div_ceil(64) as u32), self.0.extent(64), Extent::Fixed(1)])
    }
}

impl Matmul {
    fn matmul_source(&self, real: &'static str) -> KernelSource {
        let wgsl = self.0.constants().choose(real).bool("OVER_OUTPUTS", self.0.over_outputs);
        wgsl.kernel("shaders/linear/matmul.wgsl")
    }
}

/// [`Matmul`] that keeps activations in f32 on every device; same bindings.
#[derive(Debug, Clone, Copy)]
pub struct MatmulF32(pub Linear);

impl Kernel for MatmulF32 {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Matmul(self.0).matmul_source("real_f32")
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        Matmul(self.0).grid(target)
    }
}

/// [`Matmul`] for software adapters; same bindings.
#[derive(Debug, Clone, Copy)]
pub struct MatmulRowPerInvocation(pub Linear);

impl MatmulRowPerInvocation {
    /// Whether a device's subgroups allow the kernel.
    pub fn can_run(target: &KernelTarget) -> bool {
        target.variant.subgroup_size.is_some_and(|size| size >= 4 && size.is_power_of_two())
    }
}

impl Kernel for MatmulRowPerInvocation {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        self.0
            .constants()
            .uint("SUBGROUP", target.variant.subgroup_size.unwrap_or(4) as usize)
            .bool("OVER_OUTPUTS", self.0.over_outputs)
            .kernel("shaders/linear/matmul_row_per_invocation.wgsl")
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        let subgroup = target.variant.subgroup_size.unwrap_or(4);
        let rows = 4 * subgroup.min(8) as usize;
        Grid([
            Extent::Fixed(self.0.rows.div_ceil(rows) as u32),
            self.0.extent(subgroup),
            Extent::Fixed(1),
        ])
    }
}

/// [`MatvecQ8`] for devices whose subgroups all have one size. K is split over a workgroup's
/// subgroups. It takes up to `m` activation rows at once. Bindings: data, scales, x, its groups,
/// both with room for `m` rows, step, y.
#[derive(Debug, Clone, Copy)]
pub struct MatvecQ8Split {
    pub linear: Linear,
    /// Activation rows that share one read of the weights; a step may have fewer.
    pub m: usize,
    /// Workgroups that share the columns of a row. If there are several, the weights must be
    /// interleaved, and results are sums `[splits, rows, y_stride]`, to be added.
    pub splits: usize,
    /// Distance from one split's results to the next one's, in elements.
    pub split_stride: usize,
}

impl MatvecQ8Split {
    /// The largest number of activation rows for which one read of the weights is fast.
    pub const MOST_ROWS: usize = 8;

    /// The number of activation rows `m` of the kernel that suits `rows` best. Not more than
    /// necessary, because loads for missing rows take as long as others.
    pub fn room(rows: usize) -> usize {
        rows.next_power_of_two().min(Self::MOST_ROWS)
    }

    /// Whether a device's subgroups allow the kernel.
    pub fn runs_on(target: &KernelTarget) -> bool {
        target.variant.dp4a
            && target
                .variant
                .subgroup_size
                .is_some_and(|size| (4..=64).contains(&size) && size.is_power_of_two())
    }

    /// Weight rows that a team of lanes shares, and subgroups that share the columns.
    fn shape(&self) -> (usize, usize) {
        let (rows, cols) = (self.linear.rows, self.linear.cols);
        let split = if cols >= 16384 && rows < 16384 { 16 } else { 4 };
        let shared = if (16384..131072).contains(&rows) { 1 } else { 2 };
        (shared, split)
    }

    /// The number of workgroups over which to split the columns, for `rows` weight rows and `m`
    /// activation rows.
    pub fn splits(rows: usize, m: usize, is_interleaved: bool, target: &KernelTarget) -> usize {
        match is_interleaved && is_narrow(rows) {
            true => target.tuning.matvec(true, m).splits,
            false => 1,
        }
    }

    fn tiled_shape(&self, target: &KernelTarget) -> MatvecShape {
        target.tuning.matvec(is_narrow(self.linear.rows), self.m)
    }
}

/// The constants of `matvec_q8_interleaved16.wgsl`: a workgroup of `tiles` times `stack` tiles,
/// and the number of activation rows.
pub(in crate::gpu::kernels) fn tile_sizes(
    wgsl: Wgsl,
    workgroup: usize,
    tiles: usize,
    stack: usize,
    m: usize,
) -> Wgsl {
    wgsl.uint("WORKGROUP", workgroup)
        .uint("TILES", tiles)
        .uint("STACK", stack)
        .uint("M", m)
        .uint("SUMS", m * stack)
}

impl Kernel for MatvecQ8Split {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let subgroup = target.variant.subgroup_size.unwrap_or(32) as usize;
        let (shared, split) = self.shape();
        let linear = &self.linear;
        let wgsl = linear.sizes().bool("OVER_OUTPUTS", linear.over_outputs);
        let wgsl = wgsl.weights(linear.format, linear.cols, linear.interleaved16);
        match linear.interleaved16 {
            true => {
                let MatvecShape { workgroup, stack, .. } = self.tiled_shape(target);
                tile_sizes(wgsl, workgroup, 1, stack, self.m)
                    .uint("SPLITS", self.splits)
                    .uint("SPLIT_STRIDE", self.split_stride)
                    .kernel("shaders/linear/matvec_q8_interleaved16.wgsl")
            }
            false => wgsl
                .uint("M", self.m)
                .uint("SUBGROUP", subgroup)
                .uint("LANES", subgroup.min(16))
                .uint("K_SPLIT", split)
                .uint("WORKGROUP", subgroup * split)
                .uint("R", shared)
                .kernel("shaders/linear/matvec_q8_split.wgsl"),
        }
    }

    fn cost(&self) -> Cost {
        self.linear.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        let subgroup = target.variant.subgroup_size.unwrap_or(32) as usize;
        let rows = match self.linear.interleaved16 {
            true => TILE_ROWS * self.tiled_shape(target).stack,
            false => subgroup / subgroup.min(16) * self.shape().0,
        };
        Grid::folded(self.linear.rows.div_ceil(rows), Extent::Fixed(self.splits as u32))
    }
}
