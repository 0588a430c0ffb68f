//! RMS norms against their twins.

use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        Gpu,
        kernels::{NormAddNorm, RmsNorm, stride},
    },
};
use proptest::prelude::*;

use crate::harness::*;

const EPS: f32 = 1e-6;

fn check_rms_norm(gpu: &Gpu, rows: usize, n: usize, seed: u64) {
    let (x, weight) = (random(rows * n, seed), random(n, seed + 1));
    let mut expected = vec![0.0; rows * n];
    ops::rms_norm(&x, Some(&weight), n, EPS, &mut expected);
    let out = zeros(gpu, rows * stride(n));
    run(gpu, &RmsNorm { n, eps: EPS }, &[&upload_rows(gpu, &x, n), &upload(gpu, &weight), &out], rows, 0);
    assert_close("rms_norm", gpu, &download_rows(gpu, &out, rows, n), &expected, 1e-5);
}

fn check_norm_add_norm(gpu: &Gpu, rows: usize, n: usize, seed: u64) {
    let (mut x, branch) = (random(rows * n, seed), random(rows * n, seed + 1));
    let (post, next, scalar) = (random(n, seed + 2), random(n, seed + 3), 0.7f32);
    let (stream, out) = (upload_rows(gpu, &x, n), zeros(gpu, rows * stride(n)));
    let layer = gpu.uniform("layer", [scalar.to_bits(), 0, 0, 0]).expect("a uniform");
    let buffers = [&stream, &upload_rows(gpu, &branch, n), &upload(gpu, &post), &upload(gpu, &next), &out, &layer];
    run(gpu, &NormAddNorm { n, eps: EPS }, &buffers, rows, 0);
    let mut expected = vec![0.0; rows * n];
    ops::norm_add_norm(&mut x, &branch, &post, scalar, &next, EPS, &mut expected);
    assert_close("norm_add_norm, stream", gpu, &download_rows(gpu, &stream, rows, n), &x, 1e-5);
    assert_close("norm_add_norm, out", gpu, &download_rows(gpu, &out, rows, n), &expected, 1e-5);
}

#[test]
fn awkward_sizes() {
    for gpu in devices() {
        for (rows, n) in [(1, 1), (1, 7), (3, 36), (2, 256), (5, 257), (1, 5376)] {
            check_rms_norm(gpu, rows, n, 1);
            check_norm_add_norm(gpu, rows, n, 2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_size(rows in 1usize..9, n in 1usize..900, seed: u32, device: prop::sample::Index) {
        let gpu = device.get(devices());
        check_rms_norm(gpu, rows, n, seed as u64);
        check_norm_add_norm(gpu, rows, n, seed as u64);
    }
}
