//! Attention of single tokens, split over the keys.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::attention::sdpa::{RopeKvUpdate, attention_constants, layer_cost};
use crate::gpu::kernels::epilogue::ActivationFormat;
use crate::gpu::kernels::wgsl::Wgsl;
use crate::gpu::kernels::{Cost, Kernel};
use crate::model::config::{AttentionKind, LayerConfig, ModelConfig};
use crate::model::kv::CacheType;

/// Attention of single tokens in two passes. [`SdpaDecode`] computes parts of the keys, and
/// [`SdpaCombine`] combines the results. Heads must have a multiple of 8 dims.
#[derive(Debug, Clone)]
pub struct SplitAttention {
    pub layer: LayerConfig,
    /// Factor on q·k.
    pub scale: f32,
    pub cache_type: CacheType,
    pub capacity: usize,
    /// Rows for which the kernels are made. With more rows, fewer parts fill a device.
    pub rows: usize,
}

/// The work of one workgroup of [`SdpaDecode`].
#[derive(Debug, Clone, Copy)]
struct Share {
    workgroup: usize,
    /// Query heads.
    heads: usize,
    /// Number of keys at once.
    tile: usize,
}

impl Share {
    /// Bytes of workgroup memory, somewhat rounded up.
    fn bytes(&self, head_dim: usize) -> usize {
        let scores =
            (KEY_LANES * (self.heads * self.tile + 4)).max((self.heads + 2) * head_dim / 8);
        let squares = (self.heads + 2) * head_dim.div_ceil(64);
        let tiles = self.heads * (self.tile + self.workgroup / self.heads);
        self.own_sums(head_dim)
            + 4 * ((self.heads + 2) * head_dim + scores + squares + tiles + self.heads)
    }

    /// Bytes in which invocations with the same dims add their sums of values.
    fn own_sums(&self, head_dim: usize) -> usize {
        self.workgroup / (head_dim / 8).max(1) * self.heads_at_once() * head_dim * 4
    }

    /// Heads whose sums are added at once: two, if the workgroup has only two. Two of four would
    /// need more registers.
    fn heads_at_once(&self) -> usize {
        if self.workgroup >= 256 && self.heads == 2 { 2 } else { 1 }
    }
}

impl SplitAttention {
    /// With fewer keys, a workgroup of their own does not pay.
    const SMALLEST_PART: usize = 32;
    /// Enough workgroups to fill a large device twice, for one row.
    const WORKGROUPS: usize = 256;
    /// The same for several rows, whose workgroups do not all take as long.
    const WORKGROUPS_OF_ROWS: usize = 1024;

    /// The split attention of a model's layer, in steps of `rows` rows.
    pub fn of(
        layer: &LayerConfig,
        config: &ModelConfig,
        cache_type: CacheType,
        capacity: usize,
        rows: usize,
    ) -> Self {
        let (layer, scale) = (layer.clone(), config.attention_scale);
        SplitAttention { layer, scale, cache_type, capacity, rows }
    }

    /// The heads of a workgroup, which share a KV head: as many as workgroup memory holds, at most
    /// four. More heads would need more registers than an invocation has.
    fn share(&self, target: &KernelTarget) -> Share {
        let workgroup = target.tuning.decode_workgroup;
        let shared = self.layer.n_heads / self.layer.n_kv_heads;
        let share = |heads| Share { workgroup, heads, tile: workgroup / 4 };
        let fits = |share: &Share| {
            share.bytes(self.layer.head_dim) <= target.tuning.decode_workgroup_bytes
        };
        (2..=4)
            .rev()
            .filter(|heads| shared.is_multiple_of(*heads))
            .map(share)
            .find(fits)
            .unwrap_or(share(1))
    }

    /// Invocations of [`SdpaCombine`]: enough for the parts, and for the head's dims in groups of
    /// four.
    fn combine_workgroup(&self, target: &KernelTarget) -> usize {
        target.tuning.decode_workgroup.max((self.layer.head_dim / 4).next_power_of_two())
    }

    /// Whether the kernels are made for the layer's heads, and have memory for them.
    pub fn can_run(&self, target: &KernelTarget) -> bool {
        let (share, dim) = (self.share(target), self.layer.head_dim);
        dim.is_multiple_of(8)
            && dim <= 8 * share.workgroup
            && share.bytes(dim) <= target.tuning.decode_workgroup_bytes
    }

    /// The largest number of parts of the keys.
    pub fn parts(&self, target: &KernelTarget) -> usize {
        let of_row = self.layer.n_heads / self.share(target).heads;
        let filling = match self.rows {
            0 | 1 => Self::WORKGROUPS / of_row,
            rows => (Self::WORKGROUPS / of_row).min(Self::WORKGROUPS_OF_ROWS / (of_row * rows)),
        };
        filling.clamp(1, 64)
    }

    /// f32 values of a row's partial outputs.
    pub fn partial_outputs_per_row(&self, target: &KernelTarget) -> usize {
        self.layer.n_heads * self.parts(target) * self.layer.head_dim
    }

    /// f32 values of a row's softmax statistics: maxima and sums.
    pub fn softmax_stats_per_row(&self, target: &KernelTarget) -> usize {
        self.layer.n_heads * self.parts(target) * 2
    }

    fn window(&self) -> Option<usize> {
        match self.layer.attention {
            AttentionKind::Sliding { window } => Some(window),
            AttentionKind::Full => None,
        }
    }

    pub(in crate::gpu::kernels) fn constants(&self, target: &KernelTarget) -> Wgsl {
        attention_constants(&self.layer, self.cache_type, self.capacity)
            .uint("WINDOW", self.window().unwrap_or(0))
            .uint("PARTS", self.parts(target))
            .uint("SMALLEST_PART", Self::SMALLEST_PART)
    }
}

/// Makes [`SdpaDecode`] also do the work of [`RopeKvUpdate`], before attention. It does that for q
/// alone where another layer's keys and values are used.
#[derive(Debug, Clone, Copy)]
pub struct RawHeads {
    pub v_norm: bool,
    pub eps: f32,
}

/// Bindings: qkv `[rows, qkv_stride]`, K cache, V cache, rows, partial outputs
/// `[rows, partial_outputs_per_row]`, softmax statistics `[rows, softmax_stats_per_row]`. If `raw`,
/// the norms and rotary frequencies of `RopeKvUpdate` follow. Then no two rows may belong to one
/// sequence, unless the keys are another layer's.
#[derive(Debug, Clone)]
pub struct SdpaDecode {
    pub split: SplitAttention,
    pub raw: Option<RawHeads>,
}

impl SdpaDecode {
    /// The subgroup size, if subgroups are contiguous and large enough for a key's scores.
    fn teams(target: &KernelTarget) -> Option<usize> {
        let size = target.variant.subgroup_size? as usize;
        (target.variant.subgroups_contiguous
            && size.is_power_of_two()
            && (KEY_LANES..=64).contains(&size))
        .then_some(size)
    }

    /// How `rows` heads are normed and rotated: those of q, or of k and v too.
    fn norm_heads(wgsl: Wgsl, target: &KernelTarget, rows: usize) -> Wgsl {
        wgsl.uint("HEAD_ROWS", rows).choose(match Self::teams(target) {
            Some(_) => "norm_heads_subgroups",
            None => "norm_heads_workgroup",
        })
    }
}

/// Invocations that share a key's scores.
const KEY_LANES: usize = 8;
/// Values that an invocation loads in advance. Eight would need too many registers and be slower.
const MOST_AHEAD: usize = 4;

impl Kernel for SdpaDecode {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let split = &self.split;
        let Share { workgroup, heads, tile } = split.share(target);
        // A unit is eight dims of a key, which one invocation of a team reads at once.
        let octets = split.layer.head_dim / 8;
        let (teams, value_lanes) = (workgroup / KEY_LANES, workgroup / octets);
        let score_lanes = 1 << tile.min(workgroup / heads).ilog2();
        let at_once = split.share(target).heads_at_once();
        let wgsl = split
            .constants(target)
            .uint("WORKGROUP", workgroup)
            .uint("HEADS", heads)
            .uint("TILE", tile)
            .uint("KEY_LANES", KEY_LANES)
            .uint("KEY_CLUSTERS", teams)
            .uint("KEYS_EACH", tile / teams)
            .uint("VEC8S_EACH", octets.div_ceil(KEY_LANES))
            .optional_uint("SCORE_LANES", score_lanes)
            .optional_uint("SCORES_EACH", tile / score_lanes)
            .uint("VALUE_LANES", value_lanes)
            .uint("AHEAD", tile.div_ceil(value_lanes).min(MOST_AHEAD))
            .uint("HEADS_AT_ONCE", at_once)
            .uint("OUT_ROUNDS", heads / at_once)
            .float("SCALE", split.scale);
        let teams = Self::teams(target);
        let wgsl = match teams {
            Some(subgroup) => wgsl
                .uint("SUBGROUP", subgroup)
                .optional_uint("LANE_ITEMS", octets.div_ceil(subgroup))
                .uint("LANE_SCORES", tile.div_ceil(subgroup))
                .choose("scores_subgroups"),
            None => wgsl.choose("scores_workgroup"),
        };
        let wgsl = match self.raw {
            Some(RawHeads { eps, .. }) if split.layer.kv_from.is_some() => {
                Self::norm_heads(wgsl, target, heads)
                    .optional_uint("ITEMS_EACH", (heads * octets).div_ceil(workgroup))
                    .float("EPS", eps)
                    .choose("heads_query")
            }
            Some(RawHeads { v_norm, eps }) => {
                Self::norm_heads(RopeKvUpdate::sources(wgsl, &split.layer), target, heads + 2)
                    .optional_uint("ITEMS_EACH", ((heads + 2) * octets).div_ceil(workgroup))
                    .bool("V_NORM", v_norm)
                    .float("EPS", eps)
                    .choose("heads_raw")
            }
            None => wgsl.uint("HEAD_ROWS", heads).choose("heads_ready"),
        };
        wgsl.kernel("shaders/attention/sdpa_decode.wgsl")
    }

    fn cost(&self) -> Cost {
        layer_cost(&self.split.layer)
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        let split = &self.split;
        let parts = Extent::KeyParts {
            smallest: SplitAttention::SMALLEST_PART as u32,
            most: split.parts(target) as u32,
            window: split.window().map(|window| window as u32),
        };
        Grid([
            parts,
            Extent::Fixed((split.layer.n_heads / split.share(target).heads) as u32),
            Extent::Rows(1),
        ])
    }
}

/// Bindings: partial outputs, softmax statistics, rows, then those of `epilogue` for
/// `n_heads · head_dim` columns.
#[derive(Debug, Clone)]
pub struct SdpaCombine {
    pub split: SplitAttention,
    /// Formats other than f32 need heads of a multiple of 32 dims.
    pub epilogue: ActivationFormat,
}

impl SdpaCombine {
    /// Whether the kernel can write results in a format other than f32.
    pub fn has_epilogue(layer: &LayerConfig) -> bool {
        layer.head_dim.is_multiple_of(32)
    }
}

impl Kernel for SdpaCombine {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let layer = &self.split.layer;
        let wgsl =
            self.split.constants(target).uint("WORKGROUP", self.split.combine_workgroup(target));
        self.epilogue
            .add(wgsl, target, 3, layer.n_heads * layer.head_dim)
            .kernel("shaders/attention/sdpa_combine.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Rows(1), Extent::Fixed(self.split.layer.n_heads as u32), Extent::Fixed(1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::device::adapter::AdapterFacts;

    #[test]
    fn rows_and_parts_fill_a_device_together() {
        let options = Default::default();
        let target = KernelTarget::choose(&AdapterFacts::example_card(), &options).unwrap();
        let config = ModelConfig::named("31b").unwrap();
        for layer in &config.layers[..6] {
            let workgroups = |rows| {
                let split = SplitAttention::of(layer, &config, CacheType::F16, 4096, rows);
                rows * split.parts(&target) * layer.n_heads / split.share(&target).heads
            };
            assert_eq!(workgroups(1), SplitAttention::WORKGROUPS);
            for rows in [8, 16, 32, 64] {
                assert_eq!(workgroups(rows), SplitAttention::WORKGROUPS_OF_ROWS, "{rows} rows");
            }
            assert!(workgroups(1000) >= 1000, "each row has a part");
        }
    }
}
