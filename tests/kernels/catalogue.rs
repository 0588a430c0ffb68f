//! Every kernel with parameters that differ in all the ways that change its code.

use gemma4_wgpu::{
    config::{AttentionKind, LayerConfig, Rope},
    gpu::{
        Variant,
        kernels::{
            Argmax, Embed, GatherRows, GeluMul, Kernel, Linear, Matmul, Matvec, MatvecQ8, MatvecQ8Split, NormAddNorm,
            QuantizeRows, RmsNorm, RopeKvUpdate, Sdpa, SdpaCombine, SdpaDecode, SplitAttention,
        },
    },
    quant::PackFormat,
    weights::CacheType,
};

/// All formats that kernels read.
pub const FORMATS: [PackFormat; 8] = [
    PackFormat::F32,
    PackFormat::F16,
    PackFormat::BF16,
    PackFormat::INT4,
    PackFormat::Int { bits: 4, group: 32, offset: true },
    PackFormat::INT8,
    PackFormat::Int { bits: 8, group: 32, offset: true },
    PackFormat::Int { bits: 8, group: 16, offset: false },
];

/// All variants of the kernels, for devices with subgroups of at least `subgroup` invocations.
pub fn variants(subgroup: u32) -> Vec<Variant> {
    let mut all = Vec::new();
    for subgroups in [None, Some(subgroup)] {
        for f16 in [false, true] {
            for checks in [false, true] {
                all.push(Variant { subgroups, subgroup_size: subgroups, f16, dp4a: true, checks });
            }
        }
    }
    all
}

/// A layer of the 31B model, sliding or full.
pub fn layer_31b(full: bool) -> LayerConfig {
    let head_dim = if full { 512 } else { 256 };
    LayerConfig {
        attention: if full { AttentionKind::Full } else { AttentionKind::Sliding { window: 1024 } },
        n_heads: 32,
        n_kv_heads: if full { 4 } else { 16 },
        head_dim,
        rope: Rope { theta: if full { 1e6 } else { 1e4 }, rotated_pairs: if full { 64 } else { 128 }, scale: 1.0 },
        k_eq_v: full,
        intermediate_size: 21504,
    }
}

/// Kernels of a 31B model in every number format, those that a variant can run.
pub fn kernels(variant: &Variant) -> Vec<Box<dyn Kernel>> {
    let mut all: Vec<Box<dyn Kernel>> = vec![
        Box::new(RmsNorm { n: 5376, eps: 1e-6 }),
        Box::new(NormAddNorm { n: 5376, eps: 1e-6 }),
        Box::new(GeluMul { n: 21504 }),
        Box::new(QuantizeRows { cols: 5376 }),
        Box::new(GatherRows { cols: 5376 }),
        Box::new(Argmax { n: 262144 }),
    ];
    for format in FORMATS {
        all.push(Box::new(Embed { format, first_row: 0, rows: 262144, cols: 5376, scale: 73.3 }));
        for (softcap, over_outputs) in [(None, false), (Some(30.0), true)] {
            let linear =
                Linear { format, rows: 8192, cols: 5376, y_stride: 16384, y_offset: 8192, softcap, over_outputs };
            all.push(Box::new(Matvec(linear)));
            all.push(Box::new(Matmul(linear)));
            if Linear::supports_q8(format) {
                all.push(Box::new(MatvecQ8(linear)));
                all.push(Box::new(MatvecQ8Split { linear, m: 1 }));
                all.push(Box::new(MatvecQ8Split { linear, m: 8 }));
            }
        }
    }
    for full in [false, true] {
        for cache_type in [CacheType::F16, CacheType::F32] {
            let layer = layer_31b(full);
            for v_norm in [false, true] {
                let layer = layer.clone();
                all.push(Box::new(RopeKvUpdate { layer, v_norm, eps: 1e-6, cache_type, capacity: 1536 }));
            }
            let split = SplitAttention { layer: layer.clone(), scale: 1.0, cache_type, capacity: 1536 };
            all.push(Box::new(SdpaCombine(split.clone())));
            if variant.subgroups.is_some() {
                all.push(Box::new(SdpaDecode(split)));
            }
            for q_tile in [1, Sdpa::prefill_tile(&layer)] {
                let layer = layer.clone();
                all.push(Box::new(Sdpa { layer, scale: 1.0, cache_type, capacity: 1536, q_tile }));
            }
        }
    }
    all
}
