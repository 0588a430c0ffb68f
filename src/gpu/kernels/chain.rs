//! What lies between two layers' attention, for one row, in one dispatch.

use super::{Cost, Kernel, Linear};
use crate::{
    gpu::{AdapterFacts, Binding, Extent, Grid, KernelSource, Variant, wgsl::Wgsl},
    quant::PackFormat,
};

/// From attention's output in one layer to q, k and v of the next one: o_proj, [`NormAddNorm`](super::NormAddNorm), gate and up with GELU, down_proj,
/// [`NormAddNorm`](super::NormAddNorm), qkv, for one row with int8 activations. The workgroups must all run at once: where they do not, a fault is kept in `sync`
/// and the results are wrong.
///
/// Bindings: data and scales of o, gate and up, down, qkv; attention's output as [`Emit::Q8`](super::Emit::Q8); weights of the norms after and
/// before o_proj and the MLP, `[n]` each: post attention, pre feedforward, post feedforward, next layer's input; x `[n]` (updated);
/// room for as much; branch `[Chain::SPLITS, n]`; the MLP's hidden state as Q8; q, k and v; sync, three words: arrivals (zero before
/// each step), fault, unused; uniform whose first f32 is the layer's scalar.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    /// `n × heads`; `2 · ffn × n`; `n × ffn`; `q, k, v × n`.
    pub o: Linear,
    pub gate_up: Linear,
    pub down: Linear,
    pub qkv: Linear,
    pub eps: f32,
    /// Workgroups, which wait for one another.
    pub workgroups: usize,
}

impl Chain {
    const WORKGROUP: usize = 512;
    /// Parts of the columns of o_proj and down_proj: rows alone do not keep a large device busy evenly.
    pub const SPLITS: usize = 3;
    /// Groups of weights that are on their way to an invocation at once.
    const DEPTH: usize = 4;
    /// Looks at the others' arrival before a workgroup gives up: some hundredths of a second. llvmpipe leaves any loop after 65535.
    const MOST_SPINS: usize = 60_000;

    /// Whether a device can run the kernel for matrices like these, its workgroups' company aside.
    pub fn can_run(&self, variant: &Variant, facts: &AdapterFacts) -> bool {
        let is_int4 = |linear: &Linear| linear.format == PackFormat::INT4 && linear.softcap.is_none();
        let n = self.o.rows;
        let neighbours = (variant.coop || variant.lanes) && variant.subgroup_size.is_some_and(|size| size >= 8);
        neighbours
            && variant.dp4a
            && facts.coherent
            && facts.max_storage_buffers >= 21
            && facts.max_workgroup_invocations >= Self::WORKGROUP as u32
            && [self.o, self.gate_up, self.down, self.qkv].iter().all(is_int4)
            && [self.gate_up.cols, self.down.rows, self.qkv.cols] == [n; 3]
            && self.gate_up.rows == 2 * self.down.cols
            && n.is_multiple_of(32)
            && n <= 16384
            && self.o.cols.is_multiple_of(32)
            && self.down.cols.is_multiple_of(32)
            && self.qkv.rows.is_multiple_of(16)
    }
}

impl Kernel for Chain {
    fn source(&self, variant: &Variant) -> KernelSource {
        let n = self.o.rows;
        let matrices = [("o", self.o), ("gate_up", self.gate_up), ("down", self.down), ("qkv", self.qkv)];
        let mut wgsl = Wgsl::new()
            .uint("N", n)
            .float("EPS", self.eps)
            .uint("WORKGROUPS", self.workgroups)
            .uint("MOST_SPINS", Self::MOST_SPINS)
            .uint("SPLITS", Self::SPLITS)
            .uint("DEPTH", Self::DEPTH)
            .uint("PER", (n / 4).div_ceil(Self::WORKGROUP));
        for (name, linear) in matrices {
            wgsl = wgsl
                .uint(&format!("{name}_ROWS"), linear.rows)
                .uint(&format!("{name}_GROUPS"), linear.cols / 32)
                .bool(&format!("{name}_TILED"), linear.tiled)
                .part(&include_str!("../../../shaders/common/chain_product.wgsl").replace("NAME", name));
        }
        for name in ["o", "down"] {
            wgsl = wgsl.part(&include_str!("../../../shaders/common/chain_branch.wgsl").replace("NAME", name));
        }
        let norms = [
            ("attention", "stream", "middle", "post_attention", "pre_feedforward", "1.0"),
            ("feedforward", "middle", "stream", "post_feedforward", "next_input", "layer.x"),
        ];
        for (name, from, to, post, next, scalar) in norms {
            let text = include_str!("../../../shaders/common/chain_norm.wgsl")
                .replace("NAME", name)
                .replace("FROM", from)
                .replace("TO[", &format!("{to}["))
                .replace("POST", post)
                .replace("NEXT", next)
                .replace("SCALAR", scalar);
            wgsl = wgsl.part(&text);
        }
        let wgsl = wgsl
            .part(include_str!("../../../shaders/common/grid_barrier.wgsl"))
            .part(include_str!("../../../shaders/common/gelu.wgsl"))
            .part(include_str!("../../../shaders/common/q8_lanes.wgsl"))
            .part(include_str!("../../../shaders/chain.wgsl"))
            .reductions(variant, Self::WORKGROUP);
        KernelSource {
            name: "chain",
            wgsl: wgsl.finish(),
            bindings: [&[Binding::Read; 14][..], &[Binding::ReadWrite; 7], &[Binding::Uniform]].concat(),
        }
    }

    fn cost(&self) -> Cost {
        let parts = [self.o, self.gate_up, self.down, self.qkv].map(|linear| linear.cost());
        Cost {
            detail: format!("{} from {}", self.o.rows, self.o.cols),
            weight_bytes: parts.iter().map(|cost| cost.weight_bytes).sum(),
            multiplications_per_row: parts.iter().map(|cost| cost.multiplications_per_row).sum(),
        }
    }

    fn grid(&self, _: &Variant) -> Grid {
        Grid([Extent::Fixed(self.workgroups as u32), Extent::Fixed(1), Extent::Fixed(1)])
    }
}
