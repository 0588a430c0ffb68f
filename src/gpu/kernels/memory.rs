//! Kernels that only move memory: for synthetic models and for measuring.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Kernel, wgsl::Wgsl};

const WORKGROUP: usize = 256;

/// Fills a buffer. Bindings: words, uniform (words, seed or the word itself).
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// Random words instead of equal ones.
    pub random: bool,
}

impl Kernel for Fill {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default().uint("WORKGROUP", WORKGROUP).kernel(match self.random {
            true => "shaders/load/fill_random.wgsl",
            false => "shaders/load/fill_constant.wgsl",
        })
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Fixed(4096), Extent::Fixed(1), Extent::Fixed(1)])
    }
}

/// Reads a buffer of whole blocks. Bindings: words, sums (one u32 a block and pass).
#[derive(Debug, Clone, Copy)]
pub struct ReadAll {
    pub blocks: usize,
    /// How often.
    pub passes: usize,
}

impl ReadAll {
    /// Bytes that one workgroup reads.
    pub const BLOCK_BYTES: usize = 64 << 10;
}

impl Kernel for ReadAll {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", WORKGROUP)
            .uint("BLOCK", Self::BLOCK_BYTES / 16)
            .uint("BLOCKS", self.blocks)
            .kernel("shaders/load/read_all.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([
            Extent::Fixed((self.blocks * self.passes) as u32),
            Extent::Fixed(1),
            Extent::Fixed(1),
        ])
    }
}

/// Reads the beginning of a matrix beside a kernel that leaves the memory idle, so that the product
/// after it finds that in the last-level cache; of this matrix and a later one, an address of each
/// page. Bindings: data, scales, the later one's data and scales, a word of its own that nothing
/// else uses (so that nothing waits for it).
#[derive(Debug, Clone, Copy)]
pub struct Prefetch {
    pub data_bytes: usize,
    pub scale_bytes: usize,
    /// Of the later matrix: data, scales.
    pub later_bytes: [usize; 2],
    /// Of the data; of the scales an eighth of that. Rounded down to whole workgroups.
    pub ahead_bytes: usize,
}

impl Prefetch {
    /// Bytes of data that a workgroup reads.
    const GROUP_BYTES: usize = WORKGROUP * 64;
    /// Of the address space: what large buffers lie in.
    const PAGE: usize = 2 << 20;
    /// Workgroups that each touch all pages, so that the tables of every part of the device learn
    /// of them.
    const TOUCHES: u32 = 32;

    fn groups(&self) -> usize {
        self.ahead_bytes.min(self.data_bytes) / Self::GROUP_BYTES
    }
}

impl Kernel for Prefetch {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", WORKGROUP)
            .uint("GROUPS", self.groups())
            .uint("DATA_VEC4S", self.data_bytes / 16)
            .uint("SCALE_WORDS", self.scale_bytes / 4)
            .uint("PAGE", Self::PAGE)
            .uint("DATA_PAGES", self.data_bytes.div_ceil(Self::PAGE))
            .uint("SCALE_PAGES", self.scale_bytes.div_ceil(Self::PAGE))
            .uint("LATER_DATA_PAGES", self.later_bytes[0].div_ceil(Self::PAGE))
            .uint("LATER_SCALE_PAGES", self.later_bytes[1].div_ceil(Self::PAGE))
            .kernel("shaders/linear/prefetch.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([
            Extent::Fixed(self.groups() as u32 + Self::TOUCHES),
            Extent::Fixed(1),
            Extent::Fixed(1),
        ])
    }
}
