//! The kernels. Each is a WGSL file and a struct with its parameters, bindings and grid. Its twin
//! in [`crate::cpu::ops`] defines its results.

mod attention;
mod coop;
mod elementwise;
mod epilogue;
mod fragments;
mod gated;
mod linear;
mod memory;
mod norm;
mod per_layer;
mod persistent;
mod quantize;
mod repack;
mod sample;
mod split_attention;
mod unroll;
pub(in crate::gpu) mod wgsl;

pub use attention::{RopeKvUpdate, Sdpa};
pub use coop::{MatmulCoop, SdpaCoop};
pub use elementwise::{Argmax, ArgmaxParts, Embed, GatherRows};
pub use epilogue::{ActivationFormat, Convert, ROW_TILE};
pub use gated::{GeluMul, MatvecQ8Gated, UpTail};
pub use linear::{
    Linear, Matmul, MatmulRowPerInvocation, Matvec, MatvecQ8, MatvecQ8Split, TILE_ROWS,
};
pub use memory::{Fill, Prefetch, ReadAll};
pub use norm::{AddRmsNorm, RmsNorm, RmsNormAdd};
pub use per_layer::{PerLayerGate, PerLayerInputs};
pub use persistent::PersistentLayer;
pub use quantize::QuantizeHqq;
pub use repack::Repack;
pub use sample::{DrawWords, Sample, Suppress, TopKParts};
pub use split_attention::{RawHeads, SdpaCombine, SdpaDecode, SplitAttention};

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
