//! Every kernel, with parameters that cover all differences in its code.

use gemma4_wgpu::{
    gpu::{
        AdapterFacts, Coop, CooperativeMatrix, KernelTarget,
        kernels::{
            ActivationFormat, AddRmsNorm, Argmax, ArgmaxParts, Convert, Embed, GatherRows, GeluMul,
            Kernel, Linear, Matmul, MatmulCoop, MatmulCoopRows, MatmulRowPerInvocation, Matvec,
            MatvecQ8, MatvecQ8Gated, MatvecQ8Split, PerLayerGate, PerLayerInputs, Prefetch,
            QuantizeHqq, RawHeads, Repack, RmsNorm, RmsNormAdd, RopeKvUpdate, Sample, Sdpa,
            SdpaCombine, SdpaCoop, SdpaDecode, SplitAttention, Suppress, TopKParts, UpTail,
        },
    },
    model::{
        config::{AttentionKind, LayerConfig, Rope},
        kv::CacheType,
    },
    quant::{
        Dtype, PackFormat,
        methods::{Method, Spec},
    },
};

mod experts;
mod persistent_layers;

/// Stored types that the device converts to its layout.
pub const STORED: [Dtype; 17] = [
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q8_0,
    Dtype::Q4_K,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q5_K,
    Dtype::Q6_K,
    Dtype::IQ4_NL,
    Dtype::IQ4_XS,
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::Packed(PackFormat::INT4),
    Dtype::Packed(PackFormat::Int { bits: 4, group: 32, offset: true }),
    Dtype::Packed(PackFormat::INT8),
    Dtype::Packed(PackFormat::Int { bits: 8, group: 16, offset: false }),
];

/// The target for an adapter with these options.
fn target(facts: &AdapterFacts, options: &str) -> KernelTarget {
    let options = options.parse().expect("options");
    KernelTarget::choose(facts, &options).expect("the adapter has them")
}

/// Targets that cover all differences in the kernels' code, without cooperative matrices.
/// Subgroups have `subgroup` invocations. With `wide`, targets with f16 have large workgroups.
pub fn targets(subgroup: u32, wide: bool) -> Vec<KernelTarget> {
    let facts = AdapterFacts {
        subgroup_min_size: subgroup,
        subgroup_max_size: subgroup,
        ..AdapterFacts::example_card()
    };
    let on = |on| if on { "on" } else { "off" };
    let mut all = Vec::new();
    for subgroups in [false, true] {
        for f16 in [false, true] {
            for checks in [false, true] {
                let [subgroups, wide] = [subgroups, wide && f16].map(on);
                let [f16, checks] = [f16, checks].map(on);
                let options = format!(
                    "subgroups={subgroups},f16={f16},dp4a=on,coop=off,large_workgroups={wide},\
                     checks={checks}"
                );
                all.push(target(&facts, &options));
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
        rope: Rope {
            theta: if full { 1e6 } else { 1e4 },
            rotated_pairs: if full { 64 } else { 128 },
            scale: 1.0,
        },
        k_eq_v: full,
        intermediate_size: 21504,
        kv_from: None,
        experts: None,
    }
}

/// All layers' vectors of E4B.
fn per_layer_inputs(format: PackFormat, interleaved16: bool) -> PerLayerInputs {
    let (layers, size, projection_scale, eps) = (42, 256, 2560f32.powf(-0.5), 1e-6);
    PerLayerInputs {
        format,
        first_row: 0,
        rows: 262144,
        layers,
        size,
        projection_scale,
        eps,
        interleaved16,
    }
}

/// Kernels of a 31B model in every number format that a target can run.
#[expect(clippy::too_many_lines, reason = "a list")]
pub fn kernels(target: &KernelTarget) -> Vec<Box<dyn Kernel>> {
    let mut all: Vec<Box<dyn Kernel>> = vec![
        Box::new(RmsNorm { n: 5376, eps: 1e-6 }),
        Box::new(GatherRows { cols: 5376 }),
        Box::new(ArgmaxParts { n: 262144 }),
        Box::new(Argmax { n: 262144 }),
        Box::new(TopKParts { n: 262144 }),
        Box::new(Sample { n: 262144 }),
        Box::new(Suppress { n: 262144, count: 2 }),
    ];
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for (bits, symmetric) in [(4, true), (4, false), (8, true), (8, false)] {
            let spec = Spec { bits, group: Some(32), symmetric, method: Method::Hqq };
            all.push(Box::new(QuantizeHqq { spec, dtype, rows: 3120, cols: 5376 }));
        }
    }
    for dtype in STORED {
        for interleaved16 in [false, true] {
            all.push(Box::new(Repack { dtype, cols: 5376, rows: 5376, interleaved16 }));
        }
    }
    let mut forms = vec![ActivationFormat::F32, ActivationFormat::Q8Block32];
    if target.variant.f16 {
        forms.push(ActivationFormat::F16Tiled { m_stride: 512, block: 32 });
    }
    for &epilogue in &forms {
        for parts in [1, 3] {
            all.push(Box::new(AddRmsNorm {
                n: 5376,
                eps: 1e-6,
                parts,
                part_stride: 512 * 5376,
                epilogue,
            }));
        }
        all.push(Box::new(RmsNormAdd {
            n: 2560,
            eps: 1e-6,
            parts: 2,
            part_stride: 512 * 2560,
            epilogue,
        }));
        all.push(Box::new(PerLayerGate { n: 256, vectors_stride: 10752, epilogue }));
        all.push(Box::new(GeluMul { n: 21504, epilogue, tail: None }));
        let tail = Some(UpTail { cols: 768, parts: 11, part_stride: 512 * 768 });
        all.push(Box::new(GeluMul { n: 21504, epilogue, tail }));
        all.push(Box::new(Convert { cols: 5376, epilogue, over_outputs: false }));
    }
    all.extend(experts::kernels(&forms));
    for format in PackFormat::ALL {
        all.push(Box::new(Embed {
            format,
            first_row: 0,
            rows: 262144,
            cols: 5376,
            scale: 73.3,
            interleaved16: false,
        }));
        all.push(Box::new(per_layer_inputs(format, false)));
        for (softcap, over_outputs) in [(None, false), (Some(30.0), true)] {
            let linear = Linear {
                format,
                rows: 8192,
                cols: 5376,
                y_stride: 16384,
                y_offset: 8192,
                softcap,
                over_outputs,
                interleaved16: false,
            };
            all.push(Box::new(Matvec(linear)));
            all.push(Box::new(Matmul(linear)));
            if MatmulRowPerInvocation::can_run(target) {
                all.push(Box::new(MatmulRowPerInvocation(linear)));
            }
            if Linear::supports_q8(format) {
                all.push(Box::new(MatvecQ8(linear)));
                all.push(Box::new(MatvecQ8Split { linear, m: 1, splits: 1, split_stride: 0 }));
                all.push(Box::new(MatvecQ8Split { linear, m: 8, splits: 1, split_stride: 0 }));
            }
        }
    }
    for full in [false, true] {
        for cache_type in [CacheType::F16, CacheType::F32] {
            let layer = layer_31b(full);
            for v_norm in [false, true] {
                let layer = layer.clone();
                all.push(Box::new(RopeKvUpdate {
                    layer,
                    v_norm,
                    eps: 1e-6,
                    cache_type,
                    capacity: 1536,
                }));
            }
            let sharing = LayerConfig { kv_from: Some(0), ..layer.clone() };
            let decode = SplitAttention {
                layer: sharing.clone(),
                scale: 1.0,
                cache_type,
                capacity: 1536,
                rows: 1,
            };
            all.push(Box::new(SdpaDecode {
                split: decode,
                raw: Some(RawHeads { v_norm: true, eps: 1e-6 }),
            }));
            all.push(Box::new(RopeKvUpdate {
                layer: sharing,
                v_norm: true,
                eps: 1e-6,
                cache_type,
                capacity: 1536,
            }));
            let split = SplitAttention {
                layer: layer.clone(),
                scale: 1.0,
                cache_type,
                capacity: 1536,
                rows: 1,
            };
            for &epilogue in &forms {
                all.push(Box::new(SdpaCombine { split: split.clone(), epilogue }));
            }
            let raw = |v_norm| Some(RawHeads { v_norm, eps: 1e-6 });
            for raw in [None, raw(false), raw(true)] {
                all.push(Box::new(SdpaDecode { split: split.clone(), raw }));
            }
            for q_tile in [1, Sdpa::prefill_tile(&layer)] {
                let layer = layer.clone();
                all.push(Box::new(Sdpa { layer, scale: 1.0, cache_type, capacity: 1536, q_tile }));
            }
        }
    }
    all
}

/// The target of a GPU with cooperative matrices of 16 × 16, and its kernels.
pub fn coop() -> (KernelTarget, Vec<Box<dyn Kernel>>) {
    let target = target(&AdapterFacts::example_card(), "dp4a=on,prefetch=on,persistent=on");
    assert_eq!(target.variant.coop, Some(Coop::Sixteen));
    let mut all: Vec<Box<dyn Kernel>> = Vec::new();
    all.push(Box::new(Prefetch {
        data_bytes: 65_028_096,
        scale_bytes: 8_128_512,
        later_bytes: [65_028_096, 8_128_512],
        ahead_bytes: 8 << 20,
    }));
    for epilogue in [
        ActivationFormat::F32,
        ActivationFormat::Q8Block32,
        ActivationFormat::F16Tiled { m_stride: 512, block: 32 },
    ] {
        all.push(Box::new(AddRmsNorm {
            n: 5376,
            eps: 1e-6,
            parts: 3,
            part_stride: 512 * 5376,
            epilogue,
        }));
    }
    for format in PackFormat::ALL.into_iter().filter(|format| format.group().is_some()) {
        let linear = Linear {
            format,
            rows: 5376,
            cols: 21504,
            y_stride: 5376,
            y_offset: 0,
            softcap: None,
            over_outputs: false,
            interleaved16: false,
        };
        for (splits, interleaved16) in [(1, false), (3, false), (3, true)] {
            let linear = Linear { interleaved16, ..linear };
            all.push(Box::new(MatmulCoop {
                linear,
                first_row: 0,
                m_stride: 512,
                splits,
                split_stride: 512 * 5376,
            }));
        }
        for m in [16, 32, 64] {
            let split_stride = m * 5376;
            all.push(Box::new(MatmulCoopRows { linear, m, splits: 6, split_stride }));
            for (rows, interleaved16) in [(1024, true), (43008, true), (262144, false)] {
                let (softcap, over_outputs) = (Some(30.0), true);
                let linear = Linear { rows, interleaved16, softcap, over_outputs, ..linear };
                all.push(Box::new(MatmulCoopRows { linear, m, splits: 1, split_stride: 0 }));
            }
        }
        let linear = Linear { interleaved16: true, ..linear };
        all.push(Box::new(Embed {
            format,
            first_row: 0,
            rows: 262144,
            cols: 5376,
            scale: 73.3,
            interleaved16: true,
        }));
        all.push(Box::new(per_layer_inputs(format, true)));
        all.push(Box::new(Matvec(linear)));
        all.push(Box::new(Matmul(linear)));
        for m in [1, 8] {
            all.push(Box::new(MatvecQ8Split { linear, m, splits: 1, split_stride: 0 }));
        }
        all.push(Box::new(MatvecQ8Gated(linear)));
    }
    all.extend(persistent_layers::all());
    for full in [false, true] {
        let sdpa = Sdpa {
            layer: layer_31b(full),
            scale: 1.0,
            cache_type: CacheType::F16,
            capacity: 1536,
            q_tile: 4,
        };
        assert!(SdpaCoop::can_run(&target, &sdpa));
        for epilogue in
            [ActivationFormat::F32, ActivationFormat::F16Tiled { m_stride: 512, block: 32 }]
        {
            all.push(Box::new(SdpaCoop { sdpa: sdpa.clone(), epilogue }));
        }
    }
    (target, all)
}

/// The target of a Mac with cooperative matrices of 8 × 8, with runtime checks or without.
/// The kernels are those that other targets do not have.
pub fn coop8(checks: bool) -> (KernelTarget, Vec<Box<dyn Kernel>>) {
    let matrix = AdapterFacts::example_card().cooperative_matrices[0];
    let facts = AdapterFacts {
        name: "Apple M4 Max".into(),
        api: "metal".into(),
        device_type: "integrated GPU".into(),
        subgroup_min_size: 4,
        subgroup_max_size: 64,
        unified_memory: true,
        cooperative_matrices: vec![CooperativeMatrix { m: 8, n: 8, k: 8, ..matrix }],
        max_workgroup_bytes: 32 << 10,
        coherent: false,
        ..AdapterFacts::example_card()
    };
    let target = target(&facts, if checks { "checks=on" } else { "" });
    assert_eq!(target.variant.coop, Some(Coop::Eight));
    let mut all: Vec<Box<dyn Kernel>> = Vec::new();
    for format in PackFormat::ALL {
        for (rows, splits, interleaved16) in [(5376, 1, false), (5376, 3, true), (5371, 3, false)] {
            let linear = Linear {
                format,
                rows,
                cols: 21504,
                y_stride: 5376,
                y_offset: 0,
                softcap: None,
                over_outputs: false,
                interleaved16,
            };
            if MatmulCoop::can_run(&target, &linear) {
                let split_stride = 256 * 5376;
                all.push(Box::new(MatmulCoop {
                    linear,
                    first_row: 0,
                    m_stride: 256,
                    splits,
                    split_stride,
                }));
            }
        }
    }
    for full in [false, true] {
        let sdpa = Sdpa {
            layer: layer_31b(full),
            scale: 1.0,
            cache_type: CacheType::F16,
            capacity: 1536,
            q_tile: 4,
        };
        assert!(SdpaCoop::can_run(&target, &sdpa));
        for epilogue in
            [ActivationFormat::F32, ActivationFormat::F16Tiled { m_stride: 256, block: 32 }]
        {
            all.push(Box::new(SdpaCoop { sdpa: sdpa.clone(), epilogue }));
        }
    }
    (target, all)
}
