//! A mixture of experts: inputs, router, sorting, products, and the end of the layer.

use crate::gpu::device::grid::{Extent, Grid, StepSize};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::epilogue::ActivationFormat;
use crate::gpu::kernels::wgsl::Wgsl;
use crate::gpu::kernels::{Cost, Kernel, stride};
use crate::model::config::Experts;
use crate::quant::PackFormat;

const NORM_WORKGROUP: usize = 256;
const LARGE_WORKGROUP: usize = 1024;

fn norm_workgroup(target: &KernelTarget) -> usize {
    if target.tuning.large_workgroups { LARGE_WORKGROUP } else { NORM_WORKGROUP }
}

/// Bindings: x `[rows, stride(n)]`, pre_norm `[n]`, router_scale `[n]`, experts and routed
/// `[rows, stride(n)]`.
#[derive(Debug, Clone, Copy)]
pub struct ExpertInputs {
    pub n: usize,
    pub eps: f32,
}

impl Kernel for ExpertInputs {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("N", self.n)
            .uint("STRIDE", stride(self.n))
            .float("EPS", self.eps)
            .float("INPUT_SCALE", (self.n as f32).powf(-0.5))
            .reductions(target, norm_workgroup(target))
            .kernel("shaders/experts/expert_inputs.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}

/// Bindings: logits `[rows, stride(experts)]`, per_expert_scale `[experts]`, chosen and weights
/// `[rows, top_k]`.
#[derive(Debug, Clone, Copy)]
pub struct Route(pub Experts);

impl Kernel for Route {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("EXPERTS", self.0.count)
            .uint("TOP_K", self.0.top_k)
            .uint("LOGIT_STRIDE", stride(self.0.count))
            .uint("WORKGROUP", 128)
            .kernel("shaders/experts/route.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}

/// Sorts a step's pairs of a row and a chosen expert, and cuts them in tiles of one expert.
/// Bindings: chosen `[rows, top_k]`, pairs `[rows · top_k]`, tiles `[tiles, 4]`, step.
#[derive(Debug, Clone, Copy)]
pub struct SortExperts {
    pub experts: Experts,
    /// Most pairs of a tile.
    pub tile: usize,
}

impl SortExperts {
    /// The most tiles that the pairs of `rows` rows can need.
    pub fn most_tiles(&self, rows: usize) -> usize {
        self.tiles().count(StepSize { rows, ..StepSize::default() }) as usize
    }

    /// Workgroups for the tiles of a step's pairs.
    fn tiles(&self) -> Extent {
        let Experts { count, top_k, .. } = self.experts;
        let [experts, top_k, tile] = [count, top_k, self.tile].map(|number| number as u32);
        Extent::ExpertTiles { experts, top_k, tile }
    }
}

impl Kernel for SortExperts {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("EXPERTS", self.experts.count)
            .uint("TOP_K", self.experts.top_k)
            .uint("TILE", self.tile)
            .kernel("shaders/experts/sort_experts.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Fixed(1); 3])
    }
}

/// How the pairs of a row and a chosen expert come to a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// One by one.
    Single,
    /// In tiles of at most this number, which [`SortExperts`] made.
    Tiles(usize),
}

/// The products of pairs with matrices of some of the experts.
#[derive(Debug, Clone, Copy)]
pub struct ExpertProduct {
    pub experts: Experts,
    pub format: PackFormat,
    /// The experts whose matrices are bound, and the first of them.
    pub bound: usize,
    pub first: usize,
    /// Results of a pair.
    pub features: usize,
    pub cols: usize,
    /// An expert has gate and up, each `[features, cols]`. The results are gelu(gate) · up.
    pub gated: bool,
    /// Pairs that share a row of x, which follow one another.
    pub share: usize,
    /// See [`Linear`](super::Linear).
    pub interleaved16: bool,
}

impl ExpertProduct {
    fn source(&self, pairs: Pairs) -> Wgsl {
        Wgsl::default()
            .uint("EXPERTS", self.bound)
            .uint("FIRST_EXPERT", self.first)
            .uint("FEATURES", self.features)
            .uint("COLS", stride(self.cols))
            .uint("Y_STRIDE", stride(self.features))
            .uint("SHARE", self.share)
            .bool("GATED", self.gated)
            .weights(self.format, self.cols, self.interleaved16)
            .choose(if pairs == Pairs::Single { "single_pairs" } else { "sorted_pairs" })
    }

    fn tiles(&self, pairs: Pairs) -> Extent {
        let tile = if let Pairs::Tiles(tile) = pairs { tile } else { 1 };
        SortExperts { experts: self.experts, tile }.tiles()
    }

    /// For one row of activations.
    fn cost(&self) -> Cost {
        let rows = if self.gated { 2 * self.features } else { self.features };
        let chosen = self.experts.top_k * rows;
        Cost {
            detail: format!("{}x{rows}x{} {}", self.experts.top_k, self.cols, self.format),
            weight_bytes: (chosen * self.format.row_bytes(self.cols)) as u64,
            multiplications_per_row: (chosen * self.cols) as u64,
        }
    }
}

/// Bindings: data, scales, x `[pairs / share, stride(cols)]` f32, y `[pairs, stride(features)]`,
/// then chosen `[pairs]`, or tiles and pairs of [`SortExperts`].
#[derive(Debug, Clone, Copy)]
pub struct ExpertsMatvec {
    pub product: ExpertProduct,
    pub pairs: Pairs,
}

impl ExpertsMatvec {
    /// Most pairs of a tile.
    pub const TILE: usize = 4;
    /// Features of a workgroup.
    const RUN: usize = 16;

    /// Invocations that divide the columns of a row.
    fn lanes(&self) -> usize {
        if self.product.cols < 2048 { 8 } else { 16 }
    }
}

impl Kernel for ExpertsMatvec {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        let tile = if let Pairs::Tiles(tile) = self.pairs { tile } else { 1 };
        self.product
            .source(self.pairs)
            .uint("TILE", tile)
            .uint("LANES", self.lanes())
            .kernel("shaders/experts/experts_matvec.wgsl")
    }

    fn cost(&self) -> Cost {
        self.product.cost()
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let runs = self.product.features.div_ceil(Self::RUN) as u32;
        Grid([Extent::Fixed(runs), self.product.tiles(self.pairs), Extent::Fixed(1)])
    }
}

/// Bindings: as [`ExpertsMatvec`], with tiles of [`ExpertsMatmul::TILE`].
#[derive(Debug, Clone, Copy)]
pub struct ExpertsMatmul(pub ExpertProduct);

impl ExpertsMatmul {
    /// Most pairs of a tile.
    pub const TILE: usize = 32;
    /// Rows of weights of a workgroup.
    const ROWS: usize = 64;
}

impl Kernel for ExpertsMatmul {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        // As in `Matmul`.
        let is_f16 = target.variant.f16 && self.0.format.group().is_some();
        self.0
            .source(Pairs::Tiles(Self::TILE))
            .choose(if is_f16 { "real_f16" } else { "real_f32" })
            .kernel("shaders/experts/experts_matmul.wgsl")
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let features = if self.0.gated { Self::ROWS / 2 } else { Self::ROWS };
        let tiles = self.0.features.div_ceil(features) as u32;
        Grid([Extent::Fixed(tiles), self.0.tiles(Pairs::Tiles(Self::TILE)), Extent::Fixed(1)])
    }
}

/// Ends a layer with experts. Bindings: x `[rows, stride(n)]` (updated), branch `[parts, rows,
/// stride(n)]`, results `[rows, top_k, stride(n)]` (overwritten), weights `[rows, top_k]`. Then
/// norms ([`AddExpertsRmsNorm::norm_words`]), next weight `[n]`, and those of `epilogue` for `n`
/// columns.
#[derive(Debug, Clone, Copy)]
pub struct AddExpertsRmsNorm {
    pub n: usize,
    pub eps: f32,
    /// As in [`AddRmsNorm`](super::AddRmsNorm).
    pub parts: usize,
    pub part_stride: usize,
    pub top_k: usize,
    pub epilogue: ActivationFormat,
}

impl AddExpertsRmsNorm {
    /// Elements of the buffer of norms: three norms, then the layer's scalar. The norms are those
    /// of the MLP's output, of the experts' and of both.
    pub fn norm_words(n: usize) -> usize {
        3 * Self::norm_stride(n) + 4
    }

    /// Elements of each norm in the buffer.
    pub fn norm_stride(n: usize) -> usize {
        n.next_multiple_of(4)
    }
}

impl Kernel for AddExpertsRmsNorm {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let wgsl = Wgsl::default()
            .uint("N", self.n)
            .float("EPS", self.eps)
            .uint("PARTS", self.parts)
            .uint("PART_STRIDE", self.part_stride)
            .uint("TOP_K", self.top_k)
            .reductions(target, norm_workgroup(target));
        self.epilogue
            .add(wgsl, target, 6, self.n)
            .kernel("shaders/experts/add_experts_rms_norm.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::rows()
    }
}
