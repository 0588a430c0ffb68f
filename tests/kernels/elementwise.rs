//! Activation, selection and gathering against their twins.

use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        Gpu, StepSize,
        kernels::{
            ActivationFormat, Argmax, ArgmaxParts, GatherRows, GeluMul, Kernel, UpTail, stride,
        },
    },
};
use proptest::prelude::*;

use crate::{
    combinations::{on_devices, random_cases},
    epilogue::check_forms,
    harness::*,
};

fn check_gelu_mul(gpu: &Gpu, rows: usize, n: usize, seed: u64) {
    let gate_up: Vec<f32> = random(rows * 2 * n, seed).iter().map(|x| 12.0 * x).collect();
    let mut expected = Vec::new();
    for row in gate_up.chunks_exact(2 * n) {
        let mut gate = row[..n].to_vec();
        ops::gelu_mul(&mut gate, &row[n..]);
        expected.extend(gate);
    }
    let kernel = |epilogue| Some(Box::new(GeluMul { n, epilogue, tail: None }) as Box<dyn Kernel>);
    let step = StepSize { rows, ..Default::default() };
    let own = || vec![("gate_up", upload_rows(gpu, &gate_up, 2 * n))];
    check_forms(gpu, "gelu_mul", &kernel, &own, step, (&expected, n), 2e-5);

    // The last columns of up are a sum of three parts. The second part is half of the value.
    let cols = n / 3;
    if cols == 0 {
        return;
    }
    let mut main = gate_up.clone();
    let mut parts = vec![Vec::new(); 3];
    for row in main.chunks_exact_mut(2 * n) {
        for up in &mut row[2 * n - cols..] {
            let value = std::mem::replace(up, f32::NAN);
            [0.25, 0.5, 0.25]
                .iter()
                .zip(&mut parts)
                .for_each(|(share, part)| part.push(share * value));
        }
    }
    let tail = UpTail { cols, parts: 3, part_stride: rows * cols };
    let kernel =
        |epilogue| Some(Box::new(GeluMul { n, epilogue, tail: Some(tail) }) as Box<dyn Kernel>);
    let own = || {
        let tail = upload(gpu, &parts.concat());
        vec![("gate_up", upload_rows(gpu, &main, 2 * n)), ("tail", tail)]
    };
    check_forms(gpu, "gelu_mul with a tail", &kernel, &own, step, (&expected, n), 2e-5);
}

fn check_argmax(gpu: &Gpu, logits: &[Vec<f32>]) {
    let n = logits[0].len();
    // Output i is row i + 1 of the step and has slot i.
    let rows: Vec<[u32; 4]> =
        (0..=logits.len() as u32).map(|row| [0, 0, row.wrapping_sub(1), 0]).collect();
    let outputs: Vec<u32> = (1..=logits.len() as u32).collect();
    let sampled = zeros(gpu, logits.len());
    let parts = zeros(gpu, 2 * Argmax::PARTS * logits.len());
    let device_logits = upload(gpu, &logits.concat());
    let halves = [("logits", &device_logits), ("parts", &parts)];
    run(gpu, &ArgmaxParts { n }, &halves, 0, logits.len());
    run(
        gpu,
        &Argmax { n },
        &[
            ("parts", &parts),
            ("outputs", &upload(gpu, &outputs)),
            ("rows", &upload(gpu, &rows)),
            ("sampled", &sampled),
        ],
        0,
        logits.len(),
    );
    let expected: Vec<u32> = logits.iter().map(|row| ops::argmax(row)).collect();
    assert_eq!(download::<u32>(gpu, &sampled, logits.len()), expected, "{:?}", gpu.target());
}

#[test]
fn gelu_at_awkward_sizes() {
    let sizes = [(1, 1), (3, 50), (2, 64), (1, 4097)];
    for (gpu, [size]) in on_devices([sizes.len()]) {
        let (rows, n) = sizes[size];
        check_gelu_mul(gpu, rows, n, 3);
    }
}

/// Far from zero, GELU is the identity or zero, and never NaN.
#[test]
fn gelu_of_large_values() {
    for gpu in devices() {
        let gate_up = [3e4f32, -3e4, 1e10, -1e10, 1.0, 1.0, 1.0, 1.0];
        let out = zeros(gpu, stride(4));
        run(
            gpu,
            &GeluMul { n: 4, epilogue: ActivationFormat::F32, tail: None },
            &[("gate_up", &upload_rows(gpu, &gate_up, 8)), ("out", &out)],
            1,
            0,
        );
        assert_eq!(download_rows(gpu, &out, 1, 4), [3e4, 0.0, 1e10, 0.0]);
    }
}

#[test]
fn argmax_of_ties_and_extremes() {
    let mut ties = vec![1.0; 700];
    (ties[300], ties[301], ties[555]) = (2.0, 2.0, 2.0);
    let infinite = {
        let mut row = vec![f32::NEG_INFINITY; 700];
        row[699] = -1e30;
        row
    };
    let first = {
        let mut row = vec![-5.0; 700];
        row[0] = -4.0;
        row
    };
    for gpu in devices() {
        check_argmax(gpu, &[ties.clone(), infinite.clone(), first.clone()]);
        check_argmax(gpu, &[vec![-7.0]]);
    }
}

#[test]
fn gathers_rows() {
    for gpu in devices() {
        let (rows, cols) = (5, 70);
        let x = random(rows * cols, 4);
        let out = zeros(gpu, 3 * stride(cols));
        run(
            gpu,
            &GatherRows { cols },
            &[
                ("x", &upload_rows(gpu, &x, cols)),
                ("outputs", &upload(gpu, &[4u32, 0, 2])),
                ("out", &out),
            ],
            0,
            3,
        );
        let expected: Vec<f32> =
            [4, 0, 2].iter().flat_map(|&row| x[row * cols..][..cols].to_vec()).collect();
        assert_eq!(download_rows(gpu, &out, 3, cols), expected);
    }
}

proptest! {
    #![proptest_config(random_cases(12))]

    #[test]
    fn any_size(rows in 1usize..9, n in 1usize..3000, seed: u32, device: prop::sample::Index) {
        let gpu = device.get(devices());
        check_gelu_mul(gpu, rows, n, seed as u64);
        let row = |row: usize| random(n, seed as u64 + row as u64);
        let logits: Vec<Vec<f32>> = (0..rows).map(row).collect();
        check_argmax(gpu, &logits);
    }
}
