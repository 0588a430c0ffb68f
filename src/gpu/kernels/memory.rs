//! Kernels that only move memory: for synthetic models and for measuring.

use super::Kernel;
use crate::gpu::{Binding, Extent, Grid, KernelSource, Variant, wgsl::Wgsl};

const WORKGROUP: usize = 256;

/// Fills a buffer. Bindings: words, uniform (words, seed or the word itself).
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// Random words instead of equal ones.
    pub random: bool,
}

impl Kernel for Fill {
    fn source(&self, _: &Variant) -> KernelSource {
        KernelSource {
            name: "fill",
            wgsl: Wgsl::new()
                .uint("WORKGROUP", WORKGROUP)
                .part(match self.random {
                    true => include_str!("../../../shaders/fill_random.wgsl"),
                    false => include_str!("../../../shaders/fill_constant.wgsl"),
                })
                .finish(),
            bindings: vec![Binding::ReadWrite, Binding::Uniform],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid([Extent::Fixed(4096), Extent::Fixed(1), Extent::Fixed(1)])
    }
}

/// Reads a buffer of whole blocks once. Bindings: words, sums (one u32 a block).
#[derive(Debug, Clone, Copy)]
pub struct ReadAll {
    pub blocks: usize,
}

impl ReadAll {
    /// Bytes that one workgroup reads.
    pub const BLOCK_BYTES: usize = 64 << 10;
}

impl Kernel for ReadAll {
    fn source(&self, _: &Variant) -> KernelSource {
        KernelSource {
            name: "read_all",
            wgsl: Wgsl::new()
                .uint("WORKGROUP", WORKGROUP)
                .uint("BLOCK", Self::BLOCK_BYTES / 16)
                .part(include_str!("../../../shaders/read_all.wgsl"))
                .finish(),
            bindings: vec![Binding::Read, Binding::ReadWrite],
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid([Extent::Fixed(self.blocks as u32), Extent::Fixed(1), Extent::Fixed(1)])
    }
}
