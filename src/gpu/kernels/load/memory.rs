//! Kernels that only move memory: for synthetic models and for measuring.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Kernel, wgsl::Wgsl};

const WORKGROUP: usize = 256;

/// Fills a buffer. Bindings: words, uniform (number of words, then the seed or the word itself).
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
    /// Number of reads of the buffer.
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

/// Reads the beginning of a matrix into the last-level cache for the next product. It runs beside a
/// kernel that leaves the memory idle. It also reads one address of each page of this matrix and of
/// a later one.
///
/// Bindings: data, scales, the later matrix's data and scales, a word that nothing else uses. No
/// other kernel waits for this one, because it writes only that word.
#[derive(Debug, Clone, Copy)]
pub struct Prefetch {
    pub data_bytes: usize,
    pub scale_bytes: usize,
    /// Bytes of the later matrix: data, scales.
    pub later_bytes: [usize; 2],
    /// Bytes of data to read, rounded down to whole workgroups. An eighth of that is read of the
    /// scales.
    pub ahead_bytes: usize,
}

impl Prefetch {
    /// Bytes of data that a workgroup reads.
    const GROUP_BYTES: usize = WORKGROUP * 64;
    /// Bytes of a page of large buffers in the device's address space.
    const PAGE: usize = 2 << 20;
    /// Workgroups that each read an address of every page. There are several, so that the address
    /// tables of all parts of the device have the pages.
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
