//! All between two layers' attention in one dispatch, against the twins of its parts.

use gemma4_wgpu::{
    cpu::{CpuMatrix, ops},
    gpu::{
        Gpu, GpuBuffer,
        kernels::{Kernel, Linear, PerLayerProducts, PersistentLayer, SplitAttention},
        tile,
    },
    model::{
        config::{AttentionKind, LayerConfig, Rope},
        kv::CacheType,
    },
    quant::PackFormat,
};

use crate::{harness::*, weights::weights};

mod checks;

const EPS: f32 = 1e-6;
const SCALAR: f32 = 0.7;

/// Sizes: the residual stream, attention's output (heads, head size), the MLP, q, k and v.
/// Then the per-layer input, or 0.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    attention: [usize; 2],
    ffn: usize,
    qkv: usize,
    input: usize,
}

/// Number formats of o, gate and up, down, a per-layer input, and qkv or each of q, k and v.
#[derive(Clone)]
struct Formats {
    o: PackFormat,
    gate_up: PackFormat,
    down: PackFormat,
    input: PackFormat,
    qkv: Vec<PackFormat>,
}

impl Formats {
    fn all(format: PackFormat) -> Formats {
        Formats { o: format, gate_up: format, down: format, input: format, qkv: vec![format] }
    }
}

struct Case {
    /// The matrices of o, gate and up, and down.
    matrices: [CpuMatrix; 3],
    /// One matrix, or those of q, k and v.
    qkv: Vec<CpuMatrix>,
    input: Option<PerLayer>,
    /// The norms post attention, pre feedforward, post feedforward and next input.
    norms: [Vec<f32>; 4],
    x: Vec<f32>,
    split: SplitAttention,
}

/// A per-layer input of the second of three layers.
struct PerLayer {
    /// The matrices of its gate and projection.
    matrices: [CpuMatrix; 2],
    norm: Vec<f32>,
    vectors: Vec<f32>,
}

impl PerLayer {
    fn new(n: usize, size: usize, format: PackFormat) -> PerLayer {
        PerLayer {
            matrices: [weights(format, size, n, 12), weights(format, n, size, 13)],
            norm: random(n, 14),
            vectors: random(3 * size, 15),
        }
    }

    /// The sublayer output of the residual stream.
    fn expected(&self, x: &[f32]) -> Vec<f32> {
        let [gate, projection] = &self.matrices;
        let mut gated = product(gate, x);
        let vector = ops::per_layer_columns(&self.vectors, self.vectors.len(), gated.len(), 1);
        ops::gelu_mul(&mut gated, &vector);
        product(projection, &gated)
    }
}

/// The product of a matrix and a row of int8 activations.
fn product(matrix: &CpuMatrix, x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; matrix.out_features()];
    ops::matmul_q8(matrix, &ops::quantize_rows(x, x.len()), &mut out);
    out
}

/// The result of `SdpaDecode` for one row, a number of parts for each head.
/// Each part has sums of values, a maximum and a sum of weights.
struct Parts {
    position: usize,
    count: usize,
    sums: Vec<f32>,
    norms: Vec<[f32; 2]>,
    /// The combined attention of all parts.
    attention: Vec<f32>,
}

impl Parts {
    fn new(gpu: &Gpu, split: &SplitAttention, position: usize) -> Parts {
        let (heads, dim, most) =
            (split.layer.n_heads, split.layer.head_dim, split.parts(gpu.target()));
        let keys = position + 1;
        let count = keys.div_ceil(32.max(keys.div_ceil(most)));
        let mut sums = random(heads * most * dim, 10);
        let mut norms: Vec<[f32; 2]> =
            random(heads * most, 11).iter().map(|value| [4.0 * value, 1.5 + value.sin()]).collect();
        let mut attention = Vec::new();
        for head in 0..heads {
            let parts = head * most..head * most + count;
            let largest =
                norms[parts.clone()].iter().fold(f32::MIN, |largest, norm| largest.max(norm[0]));
            let weight = |part: usize| (norms[part][0] - largest).exp();
            let total: f32 = parts.clone().map(|part| weight(part) * norms[part][1]).sum();
            attention.extend((0..dim).map(|i| {
                parts.clone().map(|part| weight(part) * sums[part * dim + i]).sum::<f32>() / total
            }));
            // Parts of earlier steps, which the kernel must ignore.
            for part in parts.end..(head + 1) * most {
                norms[part] = [1e30, 1e30];
                sums[part * dim..(part + 1) * dim].fill(1e30);
            }
        }
        Parts { position, count, sums, norms, attention }
    }
}

impl Case {
    fn new(sizes: Sizes) -> Case {
        Case::of(sizes, &Formats::all(PackFormat::INT4))
    }

    fn of(sizes: Sizes, formats: &Formats) -> Case {
        let Sizes { n, attention: [n_heads, head_dim], ffn, qkv, input } = sizes;
        let rope = Rope { theta: 1e4, rotated_pairs: head_dim / 2, scale: 1.0 };
        let layer = LayerConfig {
            attention: AttentionKind::Full,
            n_heads,
            n_kv_heads: n_heads,
            head_dim,
            rope,
            k_eq_v: false,
            intermediate_size: ffn,
            kv_from: None,
            experts: None,
        };
        let attention = n_heads * head_dim;
        let qkv_rows = qkv / formats.qkv.len();
        let qkv = |(i, format): (usize, &PackFormat)| weights(*format, qkv_rows, n, 40 + i as u64);
        Case {
            matrices: [
                weights(formats.o, n, attention, 1),
                weights(formats.gate_up, 2 * ffn, n, 2),
                weights(formats.down, n, ffn, 3),
            ],
            qkv: formats.qkv.iter().enumerate().map(qkv).collect(),
            input: (input > 0).then(|| PerLayer::new(n, input, formats.input)),
            norms: [5, 6, 7, 8].map(|seed| random(n, seed)),
            x: random(n, 9),
            split: SplitAttention {
                layer,
                scale: 1.0,
                cache_type: CacheType::F16,
                capacity: 8192,
                rows: 1,
            },
        }
    }

    /// The residual stream, and q, k and v or the normalized hidden state.
    fn expected(&self, attention: &[f32], is_last: bool) -> (Vec<f32>, Vec<f32>) {
        let [o, gate_up, down] = &self.matrices;
        let [post_attention, pre_feedforward, post_feedforward, next_input] = &self.norms;
        let (mut x, mut normed) = (self.x.clone(), vec![0.0; self.x.len()]);
        let branch = product(o, attention);
        ops::add_rms_norm(&mut x, &branch, post_attention, 1.0, pre_feedforward, EPS, &mut normed);
        let mut products = product(gate_up, &normed);
        let (gate, up) = products.split_at_mut(down.in_features());
        ops::gelu_mul(gate, up);
        let (mut branch, mut post) = (product(down, gate), post_feedforward);
        if let Some(input) = &self.input {
            ops::rms_norm_add(&mut x, &branch, post, EPS);
            (branch, post) = (input.expected(&x), &input.norm);
        }
        ops::add_rms_norm(&mut x, &branch, post, SCALAR, next_input, EPS, &mut normed);
        let qkv = self.qkv.iter().flat_map(|matrix| product(matrix, &normed));
        let y = if is_last { normed.clone() } else { qkv.collect() };
        (x, y)
    }

    fn kernel(&self, interleaved16: bool) -> PersistentLayer {
        let [o, gate_up, down] = [0, 1, 2].map(|i| linear(&self.matrices[i], interleaved16));
        let mut y_offset = 0;
        let qkv = self.qkv.iter().map(|matrix| {
            y_offset += matrix.out_features();
            let linear = linear(matrix, interleaved16);
            Linear { y_offset: y_offset - linear.rows, ..linear }
        });
        let [n, attention, ffn] = [gate_up.cols, o.cols, down.cols];
        let per_layer = self.input.as_ref().map(|input| {
            let [gate, projection] = [0, 1].map(|i| linear(&input.matrices[i], interleaved16));
            PerLayerProducts { gate, projection }
        });
        let input = per_layer.map_or(0, |input| input.gate.rows);
        // Some more words, as if other layers were wider.
        let set_words = PersistentLayer::set_words(n, attention, ffn, input) + 8;
        PersistentLayer {
            split: self.split.clone(),
            o,
            gate_up,
            down,
            qkv: qkv.collect(),
            per_layer,
            eps: EPS,
            set_words,
            workgroups: 1,
        }
    }

    fn run(
        &self,
        gpu: &Gpu,
        kernel: &dyn Kernel,
        [is_last, interleaved16]: [bool; 2],
        set: usize,
        parts: &Parts,
    ) -> Results {
        let upload_matrix = |matrix| upload_matrix(gpu, matrix, interleaved16);
        let mut buffers: Vec<GpuBuffer> = self.matrices.iter().flat_map(upload_matrix).collect();
        let n = self.x.len();
        let rows = upload(gpu, &[[0, parts.position as u32, 0, 0]]);
        buffers.extend([upload(gpu, &parts.sums), upload(gpu, &parts.norms), rows]);
        buffers.extend(self.norms.iter().map(|norm| upload(gpu, norm)));
        let room = self.qkv.iter().map(CpuMatrix::out_features).sum::<usize>().max(n);
        let (x, y, fault) = (upload(gpu, &self.x), zeros(gpu, room), zeros(gpu, 1));
        // The step uses the second of three sets. The sets beside it have no empty words.
        let sets: Vec<u32> = [[7, PersistentLayer::SENTINEL, 7]]
            .as_flattened()
            .iter()
            .flat_map(|word| vec![*word; set])
            .collect();
        let exchange = upload(gpu, &sets);
        let layer =
            gpu.uniform("layer", [SCALAR, 1.0, 2.0, 0.0].map(f32::to_bits)).expect("a uniform");
        let results = [&x, &exchange, &y, &fault, &layer];
        let mut all: Vec<Named> = BINDINGS.into_iter().zip(buffers.iter().chain(results)).collect();
        let input: Vec<GpuBuffer> = self
            .input
            .iter()
            .flat_map(|input| {
                let mut buffers: Vec<GpuBuffer> =
                    input.matrices.iter().flat_map(upload_matrix).collect();
                let column = input.matrices[0].out_features() as u32;
                let place = gpu.uniform("place", [column, 0, 0, 0]).expect("a uniform");
                buffers.extend([upload(gpu, &input.vectors), upload(gpu, &input.norm), place]);
                buffers
            })
            .collect();
        all.extend(INPUT_BINDINGS.into_iter().zip(&input));
        let qkv: Vec<GpuBuffer> = self.qkv.iter().flat_map(upload_matrix).collect();
        let names = match self.qkv.len() {
            _ if is_last => &[][..],
            1 => &["qkv_data", "qkv_scales"],
            _ => &["q_data", "q_scales", "k_data", "k_scales", "v_data", "v_scales"],
        };
        all.extend(names.iter().copied().zip(&qkv));
        run(gpu, kernel, &all, 1, 0);
        let sets: Vec<u32> = download(gpu, &exchange, 3 * set);
        Results {
            x: download(gpu, &x, n),
            y: download(gpu, &y, room),
            fault: download(gpu, &fault, 1)[0],
            sets: sets.chunks(set).map(<[u32]>::to_vec).collect(),
        }
    }

    fn check(
        &self,
        gpu: &Gpu,
        [interleaved16, is_last]: [bool; 2],
        workgroups: usize,
        position: usize,
    ) {
        let kernel = PersistentLayer { workgroups, ..self.kernel(interleaved16) };
        let qkv = if is_last { Vec::new() } else { kernel.qkv };
        self.check_kernel(gpu, &PersistentLayer { qkv, ..kernel }, interleaved16, position);
    }

    fn check_kernel(
        &self,
        gpu: &Gpu,
        kernel: &PersistentLayer,
        interleaved16: bool,
        position: usize,
    ) {
        let parts = Parts::new(gpu, &self.split, position);
        let is_last = kernel.qkv.is_empty();
        let (x, y) = self.expected(&parts.attention, is_last);
        assert!(kernel.can_run(gpu.target(), gpu.facts()));
        let found = self.run(gpu, kernel, [is_last, interleaved16], kernel.set_words, &parts);
        assert_eq!(found.fault, 0);
        let is_empty =
            |set: &Vec<u32>| set.iter().filter(|word| **word == PersistentLayer::SENTINEL).count();
        let set = found.sets[0].len();
        // Few parts of attention need no exchange.
        let is_joined = parts.count <= PersistentLayer::MOST_JOINED;
        let unused = if is_joined { kernel.o.cols * 5 / 16 } else { 0 };
        assert_eq!(
            found.sets.iter().map(is_empty).collect::<Vec<_>>(),
            [0, 8 + unused, set],
            "words that are empty"
        );
        assert!(found.sets[0].iter().all(|word| *word == 7), "a set of others");
        let end = if is_last { "last" } else { "next" };
        let what = format!(
            "persistent layer of {} in {}, input {}, to the {end}, interleaved16 {interleaved16}, \
             at {position}",
            x.len(),
            kernel.o.format,
            self.input.is_some(),
        );
        assert_close(&format!("{what}, x"), gpu, &found.x, &x, 2e-3);
        assert_close(&what, gpu, &found.y[..y.len()], &y, 4e-3);
    }
}

/// Data and scales.
fn upload_matrix(gpu: &Gpu, matrix: &CpuMatrix, interleaved16: bool) -> [GpuBuffer; 2] {
    let (packed, cols) = (matrix.packed(), matrix.in_features());
    let words = [
        (&packed.data, packed.format.data_words(cols), 4),
        (&packed.scales, packed.format.scale_words(cols), packed.format.scale_unit()),
    ];
    words.map(|(words, row, unit)| match interleaved16 {
        true => upload(gpu, &tile(words, row, unit)),
        false => upload(gpu, words),
    })
}

const INPUT_BINDINGS: [&str; 7] = [
    "input_gate_data",
    "input_gate_scales",
    "input_projection_data",
    "input_projection_scales",
    "vectors",
    "post_input",
    "place",
];

const BINDINGS: [&str; 18] = [
    "o_data",
    "o_scales",
    "gate_up_data",
    "gate_up_scales",
    "down_data",
    "down_scales",
    "partial_outputs",
    "softmax_stats",
    "rows",
    "post_attention",
    "pre_feedforward",
    "post_feedforward",
    "next_input",
    "stream",
    "exchange",
    "y",
    "fault",
    "layer",
];

struct Results {
    x: Vec<f32>,
    /// Its length is the longer of both kinds of results.
    y: Vec<f32>,
    fault: u32,
    sets: Vec<Vec<u32>>,
}

fn linear(matrix: &CpuMatrix, interleaved16: bool) -> Linear {
    Linear {
        format: matrix.packed().format,
        rows: matrix.out_features(),
        cols: matrix.in_features(),
        y_stride: matrix.out_features(),
        y_offset: 0,
        softcap: None,
        over_outputs: false,
        interleaved16,
    }
}
