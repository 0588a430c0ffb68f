//! The kernels. Each is a WGSL file and a struct with its parameters, bindings and grid. Its twin
//! in [`crate::cpu::ops`] defines its results.

mod attention;
mod embed;
mod epilogue;
mod experts;
mod fragments;
mod header;
mod linear;
mod load;
mod norm;
mod persistent;
mod sample;
mod unroll;
pub(in crate::gpu) mod wgsl;

pub use attention::coop::SdpaCoop;
pub use attention::sdpa::{RopeKvUpdate, Sdpa};
pub use attention::split::{RawHeads, SdpaCombine, SdpaDecode, SplitAttention};
pub use embed::{Embed, GatherRows, PerLayerGate, PerLayerInputs};
pub use epilogue::{ActivationFormat, Convert, ROW_TILE};
pub use experts::{
    AddExpertsRmsNorm, ExpertInputs, ExpertProduct, ExpertsMatmul, ExpertsMatvec, Pairs, Route,
    SortExperts,
};
pub use linear::coop::MatmulCoop;
pub use linear::coop_rows::MatmulCoopRows;
pub use linear::gated::{GeluMul, MatvecQ8Gated, UpTail};
pub use linear::products::{
    Linear, Matmul, MatmulF32, MatmulRowPerInvocation, Matvec, MatvecQ8, MatvecQ8Split, TILE_ROWS,
};
pub use load::memory::{Fill, Prefetch, ReadAll};
pub use load::quantize_hqq::QuantizeHqq;
pub use load::repack::Repack;
pub use norm::{AddRmsNorm, RmsNorm, RmsNormAdd};
pub use persistent::{PerLayerProducts, PersistentLayer};
pub use sample::{Argmax, ArgmaxParts, DrawWords, Sample, Suppress, TopKParts};

pub use super::device::source::Cost;
use super::{Grid, KernelSource, KernelTarget};

/// A kernel with its parameters.
pub trait Kernel {
    /// Complete WGSL for a target.
    fn source(&self, target: &KernelTarget) -> KernelSource;

    /// Workgroups for a target.
    fn grid(&self, target: &KernelTarget) -> Grid;

    /// The kernel's work, for a profile.
    fn cost(&self) -> Cost {
        Cost::default()
    }
}

/// Columns of an activation row in memory: a multiple of 32, the rest zero.
pub fn stride(cols: usize) -> usize {
    crate::quant::padded_cols(cols)
}
