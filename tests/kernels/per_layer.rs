//! Per-layer embeddings against their twins: the vectors, and how each layer uses its own.

use gemma4_wgpu::quant::PackFormat;
use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        Gpu, StepSize,
        kernels::{
            ActivationFormat, Kernel, Linear, PerLayerGate, PerLayerInputs, RmsNormAdd, stride,
        },
        tile,
    },
};
use proptest::prelude::*;

use crate::{
    combinations::{on_devices, random_cases},
    epilogue::check_forms,
    harness::*,
    weights::weights,
};

const EPS: f32 = 1e-6;
const SAMPLED: u32 = u32::MAX;

/// Vectors of tokens in two parts of a table. The device chose some of these tokens.
fn check_inputs(gpu: &Gpu, format: PackFormat, layers: usize, size: usize, seed: u64) {
    let (vocab, cols, projection_scale) = (48, layers * size, 0.31f32);
    let table = weights(format, vocab, cols, seed);
    let norm = random(size, seed + 1);
    let tokens = [0u32, 47, SAMPLED, 6, 15, SAMPLED, 16];
    let chosen = [31u32, 3];
    let rows: Vec<[u32; 4]> =
        (0u32..).zip(tokens).map(|(slot, token)| [token, 0, slot / 4, 0]).collect();
    let taken: Vec<u32> = rows
        .iter()
        .map(|row| if row[0] == SAMPLED { chosen[row[2] as usize] } else { row[0] })
        .collect();
    let projected: Vec<f32> =
        random(tokens.len() * cols, seed + 2).iter().map(|x| 8.0 * x).collect();
    let mut expected = projected.clone();
    ops::per_layer_inputs(&mut expected, &table, &taken, &norm, projection_scale, EPS);

    let packed = table.packed();
    let (data_words, scale_words) = (format.data_words(cols), format.scale_words(cols));
    let (rows, sampled, norm) = (upload(gpu, &rows), upload(gpu, &chosen), upload(gpu, &norm));
    let ways = if Linear::supports_q8(format) { &[false, true][..] } else { &[false] };
    for &interleaved16 in ways {
        let x = upload_rows(gpu, &projected, cols);
        for (first_row, part_rows) in [(0, 16), (16, 32)] {
            let data = &packed.data[first_row * data_words..(first_row + part_rows) * data_words];
            let scales =
                &packed.scales[first_row * scale_words..(first_row + part_rows) * scale_words];
            let (data, scales) = match interleaved16 {
                true => (tile(data, data_words, 4), tile(scales, scale_words, format.scale_unit())),
                false => (data.to_vec(), scales.to_vec()),
            };
            let kernel = PerLayerInputs {
                format,
                first_row,
                rows: part_rows,
                layers,
                size,
                projection_scale,
                eps: EPS,
                interleaved16,
            };
            let buffers = [
                ("data", &upload(gpu, &data)),
                ("scales", &upload(gpu, &scales)),
                ("rows", &rows),
                ("sampled", &sampled),
                ("norm", &norm),
                ("x", &x),
            ];
            run(gpu, &kernel, &buffers, tokens.len(), 0);
        }
        let found = download_rows(gpu, &x, tokens.len(), cols);
        assert_close(
            &format!("per_layer_inputs, {format}, {layers}x{size}"),
            gpu,
            &found,
            &expected,
            1e-5,
        );
    }
}

fn check_gate(gpu: &Gpu, rows: usize, n: usize, layers: usize, seed: u64) {
    let cols = n * layers;
    let gate: Vec<f32> = random(rows * n, seed).iter().map(|x| 6.0 * x).collect();
    let vectors = random(rows * cols, seed + 1);
    for layer in [0, layers - 1] {
        let mut expected = gate.clone();
        ops::gelu_mul(&mut expected, &ops::per_layer_columns(&vectors, cols, n, layer));
        let kernel = |epilogue| {
            let kernel = PerLayerGate { n, vectors_stride: stride(cols), epilogue };
            Some(Box::new(kernel) as Box<dyn Kernel>)
        };
        let scaled: Vec<f32> = gate.iter().map(|x| x * RmsNormAdd::SCALE).collect();
        let own = || {
            let place = gpu.uniform("place", [(layer * n) as u32, 0, 0, 0]).expect("a uniform");
            let vectors = upload_rows(gpu, &vectors, cols);
            vec![("gate", upload_rows(gpu, &scaled, n)), ("vectors", vectors), ("place", place)]
        };
        let step = StepSize { rows, ..Default::default() };
        check_forms(gpu, "per_layer_gate", &kernel, &own, step, (&expected, n), 2e-5);
    }
}

fn check_rms_norm_add(gpu: &Gpu, rows: usize, n: usize, magnitude: f32, seed: u64) {
    let (mut x, branch, post) =
        (random(rows * n, seed), random(rows * n, seed + 1), random(n, seed + 2));
    x.iter_mut().for_each(|value| *value *= magnitude);
    let mut expected = x.clone();
    ops::rms_norm_add(&mut expected, &branch, &post, EPS);
    let scaled: Vec<f32> = expected.iter().map(|x| x * RmsNormAdd::SCALE).collect();
    // The sublayer output is one row, or two parts that are one row further apart than needed.
    let part_stride = (rows + 1) * stride(n);
    for parts in [1, 2] {
        let share = 1.0 / parts as f32;
        let own = || {
            let mut all = vec![0.0; parts * part_stride];
            for (row, values) in branch.chunks_exact(n).enumerate() {
                for (at, value) in values.iter().enumerate() {
                    (0..parts).for_each(|part| {
                        all[part * part_stride + row * stride(n) + at] = value * share
                    });
                }
            }
            vec![
                ("x", upload_rows(gpu, &x, n)),
                ("branch", upload(gpu, &all)),
                ("post_weight", upload(gpu, &post)),
            ]
        };
        let kernel = |epilogue| {
            Some(Box::new(RmsNormAdd { n, eps: EPS, parts, part_stride, epilogue })
                as Box<dyn Kernel>)
        };
        let step = StepSize { rows, ..Default::default() };
        check_forms(gpu, "rms_norm_add", &kernel, &own, step, (&scaled, n), 1e-5);

        let (own, out) = (own(), zeros(gpu, rows * stride(n)));
        let named = own.iter().map(|(name, buffer)| (*name, buffer));
        let buffers: Vec<Named> = named.chain([("out", &out)]).collect();
        run(gpu, &*kernel(ActivationFormat::F32).expect("floats"), &buffers, rows, 0);
        assert_close(
            "rms_norm_add, stream",
            gpu,
            &download_rows(gpu, &own[0].1, rows, n),
            &expected,
            1e-5,
        );
    }
}

#[test]
fn vectors_in_every_format() {
    // Layers that begin inside vec8s and groups of the table, and the published sizes.
    let sizes = [(5, 9), (2, 256)];
    for (gpu, [format, size]) in on_devices([PackFormat::ALL.len(), sizes.len()]) {
        let (layers, size) = sizes[size];
        check_inputs(gpu, PackFormat::ALL[format], layers, size, 7);
    }
}

#[test]
fn awkward_sizes() {
    let gates = [(1, 1, 1), (3, 9, 5), (2, 256, 3), (4, 300, 2)];
    for (gpu, [gate]) in on_devices([gates.len()]) {
        let (rows, n, layers) = gates[gate];
        check_gate(gpu, rows, n, layers, 3);
    }
    let sizes = [(1, 1), (3, 30), (2, 256), (1, 2560), (2, 5000)];
    for (gpu, [size]) in on_devices([sizes.len()]) {
        let (rows, n) = sizes[size];
        check_rms_norm_add(gpu, rows, n, 1.0, 5);
    }
    for gpu in devices() {
        // Larger than f16's range.
        check_rms_norm_add(gpu, 2, 96, 2e5, 6);
    }
}

proptest! {
    #![proptest_config(random_cases(12))]

    #[test]
    fn any_size(
        rows in 1usize..6,
        n in 1usize..400,
        layers in 1usize..5,
        format in prop::sample::select(PackFormat::ALL.to_vec()),
        seed: u32,
        device: prop::sample::Index,
    ) {
        let gpu = device.get(devices());
        check_inputs(gpu, format, layers, n, seed as u64);
        check_gate(gpu, rows, n, layers, seed as u64);
        check_rms_norm_add(gpu, rows, n, 1.0, seed as u64);
    }
}
