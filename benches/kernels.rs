//! Times of single kernels on the most capable adapter, at shapes of Gemma 4 31B: `cargo bench`.
//! Whole models are timed by `gemma4-wgpu bench`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemma4_wgpu::{
    gpu::{
        DeviceOptions, Dispatch, Gpu, GpuBuffer, StepSize,
        kernels::{
            ActivationFormat, AddRmsNorm, Convert, Kernel, Linear, Matmul, MatmulCoop,
            MatmulCoopRows, MatmulRowPerInvocation, Matvec, MatvecQ8Split, ROW_TILE, RawHeads,
            RopeKvUpdate, Sdpa, SdpaCoop, SdpaDecode, SplitAttention, stride,
        },
    },
    model::{
        config::{AttentionKind, LayerConfig, Rope},
        kv::CacheType,
    },
    quant::PackFormat,
};

fn zeros(gpu: &Gpu, words: usize) -> GpuBuffer {
    gpu.buffer("bench", 4 * words as u64).expect("the buffer fits")
}

fn bind(gpu: &Gpu, kernel: &dyn Kernel, buffers: &[(&str, &GpuBuffer)]) -> Dispatch {
    gpu.dispatch(&kernel.source(gpu.target()), buffers, kernel.grid(gpu.target()))
        .expect("the kernel compiles")
}

/// Submits a dispatch and waits for it.
fn run(gpu: &Gpu, dispatch: &Dispatch, step: StepSize) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    dispatch.encode(&mut encoder.begin_compute_pass(&Default::default()), step);
    gpu.queue().submit([encoder.finish()]);
    gpu.wait().expect("the kernel runs");
}

/// Rows and columns of matrices, smaller for software adapters.
fn shapes(gpu: &Gpu) -> Vec<(usize, usize)> {
    match gpu.facts().is_software() {
        true => vec![(1024, 1344)],
        false => vec![(43008, 5376), (5376, 21504), (16384, 5376), (5376, 8192)],
    }
}

fn linear(rows: usize, cols: usize) -> Linear {
    Linear {
        format: PackFormat::INT4,
        rows,
        cols,
        y_stride: rows,
        y_offset: 0,
        softcap: None,
        over_outputs: false,
        interleaved16: false,
    }
}

/// Products of int4 weights with one token, and with a chunk of a prompt.
fn products(criterion: &mut Criterion, gpu: &Gpu) {
    let chunk = if gpu.facts().is_software() { 64 } else { 512 };
    for (rows, cols) in shapes(gpu) {
        let (linear, format) = (linear(rows, cols), PackFormat::INT4);
        let (data, scales) = (
            zeros(gpu, rows * format.data_words(cols)),
            zeros(gpu, rows * format.scale_words(cols)),
        );
        let (x, y) = (zeros(gpu, chunk * stride(cols)), zeros(gpu, 3 * chunk * rows));
        let quants = [zeros(gpu, chunk * stride(cols) / 4), zeros(gpu, chunk * stride(cols) / 16)];
        let halves = zeros(gpu, chunk.next_multiple_of(ROW_TILE) * stride(cols) / 2);
        let shape = format!("{rows}x{cols}");
        let weights = [("data", &data), ("scales", &scales)];

        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Bytes((rows * format.row_bytes(cols)) as u64));
        let one = gpu.uniform("step", [1, 0, 0, 0]).expect("a uniform");
        let step = StepSize { rows: 1, outputs: 0, keys: 0 };
        let dispatch = bind(gpu, &Matvec(linear), &[weights[0], weights[1], ("x", &x), ("y", &y)]);
        group.bench_function(BenchmarkId::new("matvec", &shape), |b| {
            b.iter(|| run(gpu, &dispatch, step))
        });
        if MatvecQ8Split::runs_on(gpu.target()) {
            let kernel = MatvecQ8Split { linear, m: 1, splits: 1, split_stride: 0 };
            let dispatch = bind(
                gpu,
                &kernel,
                &[
                    weights[0],
                    weights[1],
                    ("x", &quants[0]),
                    ("x_groups", &quants[1]),
                    ("step", &one),
                    ("y", &y),
                ],
            );
            group.bench_function(BenchmarkId::new("matvec_q8_split", &shape), |b| {
                b.iter(|| run(gpu, &dispatch, step))
            });
        }
        group.finish();

        let mut group = criterion.benchmark_group("prefill");
        group.throughput(Throughput::Elements(2 * (rows * cols * chunk) as u64));
        let many = gpu.uniform("step", [chunk as u32, 0, 0, 0]).expect("a uniform");
        let step = StepSize { rows: chunk, outputs: 0, keys: 0 };
        let dispatch = bind(
            gpu,
            &Matmul(linear),
            &[weights[0], weights[1], ("x", &x), ("y", &y), ("step", &many)],
        );
        group.bench_function(BenchmarkId::new("matmul", &shape), |b| {
            b.iter(|| run(gpu, &dispatch, step))
        });
        if MatmulRowPerInvocation::can_run(gpu.target()) {
            let dispatch = bind(
                gpu,
                &MatmulRowPerInvocation(linear),
                &[weights[0], weights[1], ("x", &x), ("y", &y), ("step", &many)],
            );
            group.bench_function(BenchmarkId::new("matmul_row_per_invocation", &shape), |b| {
                b.iter(|| run(gpu, &dispatch, step))
            });
        }
        if MatmulCoop::can_run(gpu.target(), &linear) {
            let kernel = MatmulCoop {
                linear,
                first_row: 0,
                m_stride: chunk,
                splits: MatmulCoop::splits(rows, cols),
                split_stride: chunk * rows,
            };
            let dispatch = bind(
                gpu,
                &kernel,
                &[weights[0], weights[1], ("x", &halves), ("y", &y), ("step", &many)],
            );
            group.bench_function(BenchmarkId::new("matmul_coop", &shape), |b| {
                b.iter(|| run(gpu, &dispatch, step))
            });
        }
        group.finish();
    }
}

/// Products of int4 weights with 16, 32 and 64 tokens, on devices with matrices of 16 × 16.
fn products_of_few_rows(criterion: &mut Criterion, gpu: &Gpu) {
    for (rows, cols) in shapes(gpu) {
        let (linear, format) = (linear(rows, cols), PackFormat::INT4);
        if !MatmulCoopRows::can_run(gpu.target(), &linear) {
            return;
        }
        let data = zeros(gpu, rows * format.data_words(cols));
        let scales = zeros(gpu, rows * format.scale_words(cols));
        let mut group = criterion.benchmark_group("batch");
        group.throughput(Throughput::Bytes((rows * format.row_bytes(cols)) as u64));
        for m in [16, 32, 64] {
            let splits = MatmulCoopRows::splits(gpu.target(), &linear, m);
            let kernel = MatmulCoopRows { linear, m, splits, split_stride: m * rows };
            let x = zeros(gpu, m * stride(cols) / 2);
            let y = zeros(gpu, splits * m * rows);
            let step = gpu.uniform("step", [m as u32, 0, 0, 0]).expect("a uniform");
            let buffers =
                [("data", &data), ("scales", &scales), ("x", &x), ("y", &y), ("step", &step)];
            let dispatch = bind(gpu, &kernel, &buffers);
            let step = StepSize { rows: m, outputs: 0, keys: 0 };
            let name = format!("matmul_coop_rows of {m}");
            group.bench_function(BenchmarkId::new(name, format!("{rows}x{cols}")), |b| {
                b.iter(|| run(gpu, &dispatch, step))
            });
        }
        group.finish();
    }
}

/// Attention of one token and of a chunk of a prompt, over 2048 earlier keys.
fn attention(criterion: &mut Criterion, gpu: &Gpu) {
    let mut group = criterion.benchmark_group("attention");
    let (chunk, capacity) = (64, 2560);
    for (name, full) in [("sliding", false), ("full", true)] {
        let layer = LayerConfig {
            attention: if full {
                AttentionKind::Full
            } else {
                AttentionKind::Sliding { window: 1024 }
            },
            n_heads: 32,
            n_kv_heads: if full { 4 } else { 16 },
            head_dim: if full { 512 } else { 256 },
            rope: Rope { theta: 1e4, rotated_pairs: 64, scale: 1.0 },
            k_eq_v: full,
            intermediate_size: 21504,
            kv_from: None,
            experts: None,
        };
        let cache_words = layer.n_kv_heads * capacity * layer.head_dim / 2;
        let (k, v) = (zeros(gpu, cache_words), zeros(gpu, cache_words));
        let qkv = zeros(gpu, chunk * RopeKvUpdate::qkv_stride(&layer));
        let out = zeros(gpu, chunk * stride(layer.n_heads * layer.head_dim));
        let rows: Vec<u32> = (0..chunk as u32).flat_map(|row| [0, 2048 + row, 0, 0]).collect();
        let rows = gpu.buffer_of("rows", &rows).expect("the buffer fits");
        let many = gpu.uniform("step", [chunk as u32, 0, 0, 0]).expect("a uniform");

        let inputs = [("qkv", &qkv), ("k_cache", &k), ("v_cache", &v), ("rows", &rows)];
        let split = SplitAttention {
            layer: layer.clone(),
            scale: 1.0,
            cache_type: CacheType::F16,
            capacity,
            rows: 1,
        };
        let variant = gpu.target();
        let (sums, norms) = (
            zeros(gpu, split.partial_outputs_per_row(variant)),
            zeros(gpu, split.softmax_stats_per_row(variant)),
        );
        if split.can_run(variant) {
            let step = StepSize { rows: 1, outputs: 0, keys: 2049 };
            let (head_norms, turns) =
                (zeros(gpu, 2 * layer.head_dim), zeros(gpu, layer.head_dim / 2));
            let kernel = SdpaDecode { split, raw: Some(RawHeads { v_norm: true, eps: 1e-6 }) };
            let dispatch = bind(
                gpu,
                &kernel,
                &[
                    &inputs[..],
                    &[("partial_outputs", &sums), ("softmax_stats", &norms)],
                    &[("head_norms", &head_norms), ("rope_frequencies", &turns)],
                ]
                .concat(),
            );
            group.bench_function(BenchmarkId::new("sdpa_decode", name), |b| {
                b.iter(|| run(gpu, &dispatch, step))
            });
        }
        let q_tile = Sdpa::prefill_tile(&layer);
        let sdpa = Sdpa { layer, scale: 1.0, cache_type: CacheType::F16, capacity, q_tile };
        let step = StepSize { rows: chunk, outputs: 0, keys: 2048 + chunk };
        let buffers = [&inputs[..], &[("out", &out), ("step", &many)]].concat();
        let dispatch = bind(gpu, &sdpa, &buffers);
        group.bench_function(BenchmarkId::new("sdpa", name), |b| {
            b.iter(|| run(gpu, &dispatch, step))
        });
        if SdpaCoop::can_run(gpu.target(), &sdpa) {
            let kernel = SdpaCoop { sdpa, epilogue: ActivationFormat::F32 };
            let dispatch = bind(gpu, &kernel, &buffers);
            group.bench_function(BenchmarkId::new("sdpa_coop", name), |b| {
                b.iter(|| run(gpu, &dispatch, step))
            });
        }
    }
    group.finish();
}

/// The kernels between products.
fn norms(criterion: &mut Criterion, gpu: &Gpu) {
    let mut group = criterion.benchmark_group("add_rms_norm");
    let n = 5376;
    let [x, branch, post, next, out] = [(); 5].map(|()| zeros(gpu, stride(n)));
    let (quants, groups) = (zeros(gpu, stride(n) / 4), zeros(gpu, stride(n) / 16));
    let quants = [("quants", &quants), ("quant_groups", &groups)];
    let scalar = gpu.uniform("scalar", [1f32.to_bits(), 0, 0, 0]).expect("a uniform");
    let own = [
        ("x", &x),
        ("branch", &branch),
        ("post_weight", &post),
        ("next_weight", &next),
        ("layer", &scalar),
    ];
    let step = StepSize { rows: 1, outputs: 0, keys: 0 };
    let kernel = |epilogue| AddRmsNorm { n, eps: 1e-6, parts: 1, part_stride: stride(n), epilogue };
    let floats = bind(gpu, &kernel(ActivationFormat::F32), &[&own[..], &[("out", &out)]].concat());
    group.bench_function("add_rms_norm", |b| b.iter(|| run(gpu, &floats, step)));
    let q8 = bind(gpu, &kernel(ActivationFormat::Q8Block32), &[&own[..], &quants].concat());
    group.bench_function("add_rms_norm to int8", |b| b.iter(|| run(gpu, &q8, step)));
    let convert = Convert { cols: n, epilogue: ActivationFormat::Q8Block32, over_outputs: false };
    let convert = bind(gpu, &convert, &[&[("x", &x)][..], &quants].concat());
    group.bench_function("convert to int8", |b| b.iter(|| run(gpu, &convert, step)));
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let gpu = pollster::block_on(Gpu::open(&DeviceOptions::default()))
        .expect("the benches need an adapter");
    products(criterion, &gpu);
    products_of_few_rows(criterion, &gpu);
    attention(criterion, &gpu);
    norms(criterion, &gpu);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = kernels
}
criterion_main!(benches);
