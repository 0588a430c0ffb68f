//! RMS norms against their twins.

use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        Gpu, StepSize,
        kernels::{ActivationFormat, AddRmsNorm, Kernel, RmsNorm, stride},
    },
};
use proptest::prelude::*;

use crate::{
    combinations::{on_devices, random_cases},
    epilogue::check_forms,
    harness::*,
};

const EPS: f32 = 1e-6;

fn check_rms_norm(gpu: &Gpu, rows: usize, n: usize, seed: u64) {
    let (x, weight) = (random(rows * n, seed), random(n, seed + 1));
    let mut expected = vec![0.0; rows * n];
    ops::rms_norm(&x, Some(&weight), n, EPS, &mut expected);
    let out = zeros(gpu, rows * stride(n));
    run(
        gpu,
        &RmsNorm { n, eps: EPS },
        &[("x", &upload_rows(gpu, &x, n)), ("weight", &upload(gpu, &weight)), ("out", &out)],
        rows,
        0,
    );
    assert_close("rms_norm", gpu, &download_rows(gpu, &out, rows, n), &expected, 1e-5);
}

fn check_add_rms_norm(gpu: &Gpu, rows: usize, n: usize, seed: u64) {
    let (mut x, branch) = (random(rows * n, seed), random(rows * n, seed + 1));
    let (post, next, scalar) = (random(n, seed + 2), random(n, seed + 3), 0.7f32);
    let before = x.clone();
    let mut expected = vec![0.0; rows * n];
    ops::add_rms_norm(&mut x, &branch, &post, scalar, &next, EPS, &mut expected);
    // The sublayer output is one row, or three parts that are one row further apart than needed.
    let part_stride = (rows + 1) * stride(n);
    let third: Vec<f32> = branch.iter().map(|value| value / 3.0).collect();
    for (parts, part) in [(1, &branch), (3, &third)] {
        let layer = || gpu.uniform("layer", [scalar.to_bits(), 0, 0, 0]).expect("a uniform");
        let own = || {
            let mut all = vec![0.0; parts * part_stride];
            for (row, values) in part.chunks_exact(n).enumerate() {
                (0..parts).for_each(|p| {
                    all[p * part_stride + row * stride(n)..][..n].copy_from_slice(values)
                });
            }
            vec![
                ("x", upload_rows(gpu, &before, n)),
                ("branch", upload(gpu, &all)),
                ("post_weight", upload(gpu, &post)),
                ("next_weight", upload(gpu, &next)),
                ("layer", layer()),
            ]
        };
        let kernel = |epilogue| {
            Some(Box::new(AddRmsNorm { n, eps: EPS, parts, part_stride, epilogue })
                as Box<dyn Kernel>)
        };
        let step = StepSize { rows, ..Default::default() };
        check_forms(gpu, "add_rms_norm", &kernel, &own, step, (&expected, n), 1e-5);

        let own = own();
        let out = zeros(gpu, rows * stride(n));
        let named = own.iter().map(|(name, buffer)| (*name, buffer));
        let buffers: Vec<Named> = named.chain([("out", &out)]).collect();
        run(gpu, &*kernel(ActivationFormat::F32).expect("floats"), &buffers, rows, 0);
        assert_close(
            "add_rms_norm, stream",
            gpu,
            &download_rows(gpu, &own[0].1, rows, n),
            &x,
            1e-5,
        );
    }
}

#[test]
fn awkward_sizes() {
    let sizes = [(1, 1), (1, 7), (3, 36), (2, 256), (5, 257), (1, 5376)];
    for (gpu, [size]) in on_devices([sizes.len()]) {
        let (rows, n) = sizes[size];
        check_rms_norm(gpu, rows, n, 1);
        check_add_rms_norm(gpu, rows, n, 2);
    }
}

proptest! {
    #![proptest_config(random_cases(12))]

    #[test]
    fn any_size(rows in 1usize..9, n in 1usize..900, seed: u32, device: prop::sample::Index) {
        let gpu = device.get(devices());
        check_rms_norm(gpu, rows, n, seed as u64);
        check_add_rms_norm(gpu, rows, n, seed as u64);
    }
}
