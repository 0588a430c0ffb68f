//! Rotary embedding with KV update, and attention over the KV cache.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Cost, Kernel, stride, wgsl::Wgsl};
use crate::model::config::{AttentionKind, LayerConfig};
use crate::model::kv::CacheType;

/// The constants of a layer's attention, and how to use its cache.
pub(in crate::gpu::kernels) fn attention_constants(
    layer: &LayerConfig,
    cache_type: CacheType,
    capacity: usize,
) -> Wgsl {
    cache_fragment(head_constants(Wgsl::default(), layer, capacity), cache_type)
}

/// The kind of the layer, for a profile.
pub(in crate::gpu::kernels) fn layer_cost(layer: &LayerConfig) -> Cost {
    let kind = if layer.attention == AttentionKind::Full { "full" } else { "sliding" };
    Cost { detail: format!("{kind}, {} dims", layer.head_dim), ..Default::default() }
}

/// How to read and write the KV cache.
fn cache_fragment(wgsl: Wgsl, cache_type: CacheType) -> Wgsl {
    wgsl.choose(match cache_type {
        CacheType::F16 => "cache_f16",
        CacheType::F32 => "cache_f32",
    })
}

pub(in crate::gpu::kernels) fn head_constants(
    wgsl: Wgsl,
    layer: &LayerConfig,
    capacity: usize,
) -> Wgsl {
    wgsl.uint("D", layer.head_dim)
        .optional_uint("N_HEADS", layer.n_heads)
        .optional_uint("N_KV", layer.n_kv_heads)
        .optional_uint("CAPACITY", capacity)
        .optional_uint("QKV_STRIDE", RopeKvUpdate::qkv_stride(layer))
}

/// Bindings: qkv `[rows, qkv_stride]` (q updated), q_norm and k_norm `[2, head_dim]`, rotary
/// frequencies `[head_dim / 2]`, rows, K cache, V cache `[slots, n_kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone)]
pub struct RopeKvUpdate {
    pub layer: LayerConfig,
    pub v_norm: bool,
    pub eps: f32,
    pub cache_type: CacheType,
    /// Positions that a slot of the cache holds.
    pub capacity: usize,
}

impl RopeKvUpdate {
    /// Where the k projection starts in a row of qkv.
    pub fn k_offset(layer: &LayerConfig) -> usize {
        layer.n_heads * layer.head_dim
    }

    /// Where V's source starts in a row of qkv: the v projection, or K's where V is K.
    pub fn v_offset(layer: &LayerConfig) -> usize {
        Self::k_offset(layer) + if layer.k_eq_v { 0 } else { layer.n_kv_heads * layer.head_dim }
    }

    /// Columns of a row of qkv. The row is q alone where another layer's keys and values are used.
    pub fn qkv_stride(layer: &LayerConfig) -> usize {
        match layer.kv_from {
            Some(_) => stride(Self::k_offset(layer)),
            None => stride(Self::v_offset(layer) + layer.n_kv_heads * layer.head_dim),
        }
    }

    /// Where k and v begin in a row of qkv, and how to rotate the heads.
    pub(in crate::gpu::kernels) fn sources(wgsl: Wgsl, layer: &LayerConfig) -> Wgsl {
        wgsl.uint("K_SOURCE", Self::k_offset(layer)).uint("V_SOURCE", Self::v_offset(layer))
    }

    /// Rotation of each pair per position, as a 32-bit fixed-point fraction of a full rotation. The
    /// kernel's product with the position wraps at full rotations. So angles are exact at any
    /// position.
    pub fn rope_frequencies(layer: &LayerConfig) -> Vec<u32> {
        let frequencies = layer.rope.inverse_frequencies(layer.head_dim);
        let turns = |frequency: &f32| {
            (*frequency as f64 / std::f64::consts::TAU * 2f64.powi(32)).round() as u64 as u32
        };
        frequencies.iter().map(turns).collect()
    }
}

impl Kernel for RopeKvUpdate {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        Self::sources(attention_constants(&self.layer, self.cache_type, self.capacity), &self.layer)
            .bool("V_NORM", self.v_norm)
            .float("EPS", self.eps)
            .reductions(target, 64)
            .kernel("shaders/attention/rope_kv_update.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        let kv_heads = if self.layer.kv_from.is_some() { 0 } else { 2 * self.layer.n_kv_heads };
        let heads = self.layer.n_heads + kv_heads;
        Grid([Extent::Rows(1), Extent::Fixed(heads as u32), Extent::Fixed(1)])
    }
}

/// Bindings: qkv `[rows, qkv_stride]`, K cache, V cache, rows, out `[rows, stride(n_heads ·
/// head_dim)]`, step.
#[derive(Debug, Clone)]
pub struct Sdpa {
    pub layer: LayerConfig,
    /// Factor on q·k.
    pub scale: f32,
    pub cache_type: CacheType,
    pub capacity: usize,
    /// Consecutive tokens of one sequence that a workgroup computes together. 1 where the step
    /// holds several sequences.
    pub q_tile: usize,
}

impl Sdpa {
    /// Adds the constants that all attention kernels need to `wgsl`.
    pub(in crate::gpu::kernels) fn constants(&self, wgsl: Wgsl) -> Wgsl {
        let layer = &self.layer;
        let window = match layer.attention {
            AttentionKind::Sliding { window } => window,
            AttentionKind::Full => 0,
        };
        head_constants(wgsl, layer, self.capacity)
            .uint("WINDOW", window)
            .optional_uint("OUT_STRIDE", stride(layer.n_heads * layer.head_dim))
            .float("SCALE", self.scale)
    }

    /// Tokens that a workgroup computes together during prefill, limited by workgroup memory.
    pub fn prefill_tile(layer: &LayerConfig) -> usize {
        match layer.head_dim {
            0..=512 => 4,
            _ => 1,
        }
    }
}

impl Kernel for Sdpa {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        cache_fragment(self.constants(Wgsl::default()), self.cache_type)
            .uint("WORKGROUP", 128)
            .uint("Q_TILE", self.q_tile)
            .uint("K_TILE", 128 / self.q_tile)
            .kernel("shaders/attention/sdpa.wgsl")
    }

    fn cost(&self) -> Cost {
        layer_cost(&self.layer)
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([
            Extent::Rows(self.q_tile as u32),
            Extent::Fixed(self.layer.n_heads as u32),
            Extent::Fixed(1),
        ])
    }
}
