//! The kernels: each a WGSL file and a struct that names its parameters, bindings and grid. Its
//! twin in [`crate::cpu::ops`] says what it computes.

mod attention;
mod elementwise;
mod linear;
mod memory;
mod norm;

pub use attention::{RopeKvUpdate, Sdpa, SdpaCombine, SdpaDecode, SplitAttention};
pub use elementwise::{Argmax, Embed, GatherRows, GeluMul, QuantizeRows};
pub use linear::{Linear, Matmul, Matvec, MatvecQ8, MatvecQ8Split};
pub use memory::{Fill, ReadAll};
pub use norm::{NormAddNorm, RmsNorm};

use super::{Grid, KernelSource, Variant};

/// A kernel with its parameters.
pub trait Kernel {
    /// Complete WGSL for a variant.
    fn source(&self, variant: &Variant) -> KernelSource;

    /// Workgroups for a variant.
    fn grid(&self, variant: &Variant) -> Grid;
}

/// Columns of an activation row in memory: a multiple of 32, the rest zero.
pub fn stride(cols: usize) -> usize {
    crate::quant::padded_cols(cols)
}
