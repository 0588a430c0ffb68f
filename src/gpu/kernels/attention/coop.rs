//! Attention of many tokens on cooperative matrices.

use crate::gpu::device::adapter::Coop;
use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::attention::sdpa::Sdpa;
use crate::gpu::kernels::epilogue::ActivationFormat;
use crate::gpu::kernels::wgsl::Wgsl;
use crate::gpu::kernels::{Cost, Kernel};
use crate::model::kv::CacheType;

/// [`Sdpa`] for consecutive tokens of one sequence; `q_tile` does not matter. Bindings: qkv, K
/// cache, V cache, rows, step, then those of `epilogue` for `n_heads · head_dim` columns.
#[derive(Debug, Clone)]
pub struct SdpaCoop {
    pub sdpa: Sdpa,
    /// f32 or f16.
    pub epilogue: ActivationFormat,
}

impl SdpaCoop {
    /// The kernel reads this number of keys together: a cache's capacity must be a multiple.
    pub const KEYS: usize = 16;

    /// Whether the kernel can run this attention.
    pub fn can_run(target: &KernelTarget, sdpa: &Sdpa) -> bool {
        target.variant.coop.is_some()
            && matches!(sdpa.layer.head_dim, 256 | 512)
            && sdpa.cache_type == CacheType::F16
            && sdpa.capacity.is_multiple_of(Self::KEYS)
    }

    /// Query heads of a workgroup: up to eight of those that share a KV head. With more heads it
    /// has fewer tokens, and so reads fewer keys that causality hides.
    fn heads(&self) -> usize {
        let shared = self.sdpa.layer.n_heads / self.sdpa.layer.n_kv_heads;
        [8, 4, 2].into_iter().find(|heads| shared.is_multiple_of(*heads)).unwrap_or(1)
    }
}

impl Kernel for SdpaCoop {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let layer = &self.sdpa.layer;
        // The barriers of this epilogue would be in diverging control flow.
        assert!(self.epilogue != ActivationFormat::Q8Block32, "attention of many tokens as int8");
        let wgsl = self.sdpa.constants(Wgsl::default()).uint("HEADS", self.heads());
        let wgsl = self.epilogue.add(wgsl, target, 5, layer.n_heads * layer.head_dim);
        wgsl.kernel(match target.variant.coop {
            Some(Coop::Eight) => "shaders/attention/sdpa_coop8.wgsl",
            _ => "shaders/attention/sdpa_coop.wgsl",
        })
    }

    fn cost(&self) -> Cost {
        self.sdpa.cost()
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        let heads = self.heads();
        let groups = Extent::Fixed((self.sdpa.layer.n_heads / heads) as u32);
        // `QUERIES` of the shaders, in tokens.
        let dims = if target.variant.coop == Some(Coop::Eight) { 8192 } else { 32768 };
        let tokens = dims / self.sdpa.layer.head_dim / heads;
        Grid([Extent::Rows(tokens as u32), groups, Extent::Fixed(1)])
    }
}
