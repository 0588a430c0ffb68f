//! All work between two layers' attention, for one row, in one dispatch.

use crate::gpu::device::adapter::AdapterFacts;
use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::attention::split::SplitAttention;
use crate::gpu::kernels::linear::products::Linear;
use crate::gpu::kernels::wgsl::Wgsl;
use crate::gpu::kernels::{Cost, Kernel};
use crate::quant::PackFormat;

/// Computes q, k and v of the next layer from a layer's partial attention outputs. It takes one row
/// with int8 activations. After the last layer it computes the normed hidden state instead. It
/// combines the partial outputs, then runs o_proj, [`AddRmsNorm`](super::AddRmsNorm), gate and up
/// with GELU, down_proj, [`AddRmsNorm`](super::AddRmsNorm) and qkv.
///
/// With a per-layer input, [`RmsNormAdd`](super::RmsNormAdd), the input's gate,
/// [`PerLayerGate`](super::PerLayerGate) and the input's projection come before the last
/// [`AddRmsNorm`](super::AddRmsNorm).
///
/// All workgroups must run at the same time. If they do not, the kernel records a fault, and its
/// results are wrong.
///
/// Bindings, in this order:
///
/// - data and scales of o, gate and up, down
/// - partial outputs and softmax statistics of [`SdpaDecode`](super::SdpaDecode); rows
/// - norm weights `[n]` each: post attention, pre feedforward, post feedforward, then the next
///   layer's input norm or the final norm
/// - x `[n]` (updated)
/// - [`PersistentLayer::SETS`] sets of `set_words`; a set must be empty before its use
/// - q, k and v, or the normed hidden state
/// - fault: a word
/// - uniform of f32: the layer's scalar, the set to use, the set to empty for the next dispatch, 0
/// - with a per-layer input: data and scales of its gate and projection; all layers' vectors; norm
///   weights `[n]` after the projection; the uniform of [`PerLayerGate`](super::PerLayerGate)
/// - data and scales of qkv, or of q, k and v
#[derive(Debug, Clone)]
pub struct PersistentLayer {
    /// Its heads have a multiple of 32 dims.
    pub split: SplitAttention,
    /// Shapes: `n × heads`; `2 · ffn × n`; `n × ffn`.
    pub o: Linear,
    pub gate_up: Linear,
    pub down: Linear,
    /// `q, k, v × n`: one matrix, or three of different formats. None after the last layer.
    pub qkv: Vec<Linear>,
    pub per_layer: Option<PerLayerProducts>,
    pub eps: f32,
    /// Words of a set. The workgroups of a dispatch exchange results in it. It has at least
    /// [`PersistentLayer::set_words`], and the same size for all dispatches that share sets.
    pub set_words: usize,
    /// Workgroups, which wait for one another.
    pub workgroups: usize,
}

/// The products of a per-layer input.
#[derive(Debug, Clone, Copy)]
pub struct PerLayerProducts {
    /// Shapes: `size × n`; `n × size`.
    pub gate: Linear,
    pub projection: Linear,
}

/// A product of the kernel.
struct Product {
    /// The instance of `matrix_product.wgsl`.
    name: &'static str,
    linear: Linear,
    /// Tiles of 16 rows in a unit of work.
    unit: usize,
}

impl PersistentLayer {
    /// Invocations of a workgroup. No device allows more, and a multiprocessor has no room for two
    /// such workgroups.
    const WORKGROUP: usize = 1024;
    /// The name of the product of gate and up. Its units are 32 rows of each.
    const GATED: &'static str = "gate_up";
    /// With at most this many partial outputs of attention, every workgroup combines all of them.
    /// This takes less time than an exchange.
    pub const MOST_JOINED: usize = 8;
    /// The most columns of attention's output for that.
    const MOST_JOINED_COLS: usize = 2048;
    /// Groups of weights that an invocation loads in advance.
    const DEPTH: usize = 2;
    /// Number of sets. With three, consecutive dispatches never use the same set, even in a ring of
    /// an odd number of dispatches.
    pub const SETS: usize = 3;
    /// The sentinel: a word that no workgroup has written.
    pub const SENTINEL: u32 = 0x8080_8080;
    /// Number of checks for another workgroup's result before a workgroup gives up, after a small
    /// part of a second. Software drivers leave any loop after 65535 iterations.
    const MOST_SPINS: usize = 60_000;

    /// Words of a set for rows of `n`, `attention` and `ffn` columns, and a per-layer input of
    /// `per_layer`. It holds two or three sublayer outputs, the input's gate, and int8 activations
    /// with two f32 for each 32 columns.
    pub fn set_words(n: usize, attention: usize, ffn: usize, per_layer: usize) -> usize {
        let input = if per_layer > 0 { n + per_layer } else { 0 };
        (2 * n + (attention + ffn) / 4 + (attention + ffn) / 16 + input).next_multiple_of(4)
    }

    /// Whether a device can run the kernel for these matrices. It does not verify that all
    /// workgroups run at the same time.
    pub fn can_run(&self, target: &KernelTarget, facts: &AdapterFacts) -> bool {
        let contiguous = target.variant.subgroups_contiguous
            && target.variant.subgroup_size.is_some_and(|size| size >= 8);
        contiguous
            && target.variant.dp4a
            && facts.coherent
            && facts.max_storage_buffers as usize >= self.storage_buffers()
            && facts.max_workgroup_invocations >= Self::WORKGROUP as u32
            && self.split.can_run(target)
            && self.fits()
            && facts.max_workgroup_bytes >= self.bytes() as u32
    }

    /// Whether all weights are interleaved.
    pub fn is_interleaved(&self) -> bool {
        self.products().iter().all(|product| product.linear.interleaved16)
    }

    /// Whether the kernel supports matrices of these shapes.
    fn fits(&self) -> bool {
        // Products of IQ4 look up levels in a table, which these kernels do not have.
        let is_supported = |linear: &Linear| {
            Linear::supports_q8(linear.format)
                && linear.format != PackFormat::Iq4
                && linear.softcap.is_none()
        };
        let n = self.o.rows;
        self.products().iter().all(|Product { linear, .. }| {
            is_supported(linear) && linear.cols.is_multiple_of(64) && linear.rows.is_multiple_of(16)
        }) && self.split.layer.head_dim.is_multiple_of(32)
            && self.set_words >= Self::set_words(n, self.o.cols, self.down.cols, self.input_size())
            && [self.gate_up.cols, self.down.rows] == [n; 2]
            && self.gate_up.rows == 2 * self.down.cols
            && (self.workgroups..=16384).contains(&n)
            && [0, 1, 3].contains(&self.qkv.len())
            && self.qkv.iter().all(|linear| linear.cols == n)
            && self.per_layer.is_none_or(|PerLayerProducts { gate, projection }| {
                [gate.cols, projection.rows] == [n; 2]
                    && gate.rows == projection.cols
                    && gate.rows <= 4 * Self::WORKGROUP
            })
    }

    /// Columns of the per-layer input, or 0.
    fn input_size(&self) -> usize {
        self.per_layer.map_or(0, |per_layer| per_layer.gate.rows)
    }

    fn products(&self) -> Vec<Product> {
        let input = self.per_layer.map(|PerLayerProducts { gate, projection }| {
            [("input_gate", gate), ("input_projection", projection)]
        });
        let qkv = if self.qkv.len() == 1 { &["qkv"][..] } else { &["q", "k", "v"] };
        let own = [("o", self.o), (Self::GATED, self.gate_up), ("down", self.down)];
        own.into_iter()
            .chain(input.into_iter().flatten())
            .chain(qkv.iter().copied().zip(self.qkv.iter().copied()))
            .map(|(name, linear)| Product {
                name,
                linear,
                unit: if name == Self::GATED { 4 } else { 1 },
            })
            .collect()
    }

    /// Bindings before those of qkv.
    fn first_bindings(&self) -> usize {
        if self.per_layer.is_some() { 25 } else { 18 }
    }

    /// All bindings but the uniforms, of which a per-layer input has another.
    fn storage_buffers(&self) -> usize {
        let uniforms = if self.per_layer.is_some() { 2 } else { 1 };
        self.first_bindings() + 2 * self.qkv.len() - uniforms
    }

    fn most_cols(&self) -> usize {
        self.products().iter().map(|product| product.linear.cols).max().unwrap_or(0)
    }

    /// Units that a workgroup computes at once, and the number of rounds that it needs.
    fn rounds(&self, Product { linear, unit, .. }: &Product) -> (usize, usize) {
        let units = (linear.rows / (16 * unit)).div_ceil(self.workgroups);
        // A warp's share may not exceed a tile.
        let most = units.min(Self::WORKGROUP / 32 / unit);
        (most, units.div_ceil(most))
    }

    /// Warps that read adjacent weights, at most the number of pairs of groups in a tile.
    fn cluster(&self) -> usize {
        let fits = |cluster: &usize| {
            self.products().iter().all(|product| product.linear.cols / 64 >= *cluster)
        };
        [4, 1].into_iter().find(fits).unwrap_or(1)
    }

    /// The largest number of tiles that a cluster works on.
    fn slots(&self) -> usize {
        let slots = self.products().into_iter().map(|product| {
            let pairs = product.linear.cols / 64;
            let tiles = self.rounds(&product).0 * product.unit;
            let stretch = (tiles * pairs).div_ceil(Self::WORKGROUP / 32) * self.cluster();
            if stretch.is_multiple_of(pairs) {
                stretch / pairs
            } else {
                stretch.div_ceil(pairs) + 1
            }
        });
        slots.max().unwrap_or(1)
    }

    /// Bytes of workgroup memory, somewhat rounded up.
    fn bytes(&self) -> usize {
        self.most_cols() * 5 / 4 + Self::WORKGROUP / 32 * (self.slots() * 128 + 16 + 64) + 256
    }
}

impl Kernel for PersistentLayer {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        let (n, workgroup) = (self.o.rows, Self::WORKGROUP);
        let subgroup = target.variant.subgroup_size.unwrap_or(8) as usize;
        let mut wgsl = self
            .split
            .constants(target)
            .uint("SUBGROUP", subgroup)
            .uint("PART_STEPS", (subgroup / 8).ilog2() as usize)
            .uint(
                "MOST_JOINED",
                if self.o.cols <= Self::MOST_JOINED_COLS { Self::MOST_JOINED } else { 0 },
            )
            .uint("SET_VEC4S", self.set_words / 4)
            .uint("N", n)
            .float("EPS", self.eps)
            .uint("WORKGROUPS", self.workgroups)
            .uint("MOST_SPINS", Self::MOST_SPINS)
            .uint("MOST_COLS", self.most_cols())
            .uint("CLUSTER", self.cluster())
            .uint("SLOTS", self.slots())
            .uint("PER", (n / 8).div_ceil(workgroup))
            .uint("QUANTS_PER", (self.o.cols.max(self.down.cols) / 16).div_ceil(workgroup))
            .uint("DEPTH", Self::DEPTH)
            .choose(if self.per_layer.is_some() { "per_layer_input" } else { "dense_layer" })
            .choose(match self.qkv.len() {
                0 => "to_output_head",
                1 => "to_next_layer",
                _ => "to_next_layer_apart",
            });
        if !self.qkv.is_empty() {
            wgsl = wgsl.uint("QKV_BINDING", self.first_bindings());
        }
        for product in self.products() {
            let (most_units, rounds) = self.rounds(&product);
            let Product { name, linear, unit } = product;
            let lanes = 1 << (workgroup / (most_units * unit * 16)).min(8).ilog2();
            let own = Wgsl::default()
                .uint("ROWS", linear.rows)
                .uint("GROUPS", linear.cols / 32)
                .uint("UNIT", unit)
                .uint("MOST_UNITS", most_units)
                .uint("ROUNDS", rounds)
                .uint("LANES", lanes)
                .optional_uint("Y_OFFSET", linear.y_offset)
                .bool("GATED", name == Self::GATED);
            let own = match linear.format {
                PackFormat::INT4 => {
                    own.bool("INTERLEAVED16", linear.interleaved16).choose("product_int4")
                }
                format => {
                    own.weights(format, linear.cols, linear.interleaved16).choose("product_groups")
                }
            };
            wgsl = wgsl.instance(name, own);
        }
        wgsl.reductions(target, workgroup).kernel("shaders/persistent/persistent_layer.wgsl")
    }

    fn cost(&self) -> Cost {
        let parts: Vec<Cost> =
            self.products().iter().map(|product| product.linear.cost()).collect();
        Cost {
            detail: format!("{} from {}", self.o.rows, self.o.cols),
            weight_bytes: parts.iter().map(|cost| cost.weight_bytes).sum(),
            multiplications_per_row: parts.iter().map(|cost| cost.multiplications_per_row).sum(),
        }
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Fixed(self.workgroups as u32), Extent::Fixed(1), Extent::Fixed(1)])
    }
}
