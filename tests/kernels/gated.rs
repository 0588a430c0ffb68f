//! The MLP's products and activation in one kernel, and the prefetch of weights.

use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        Gpu, StepSize,
        kernels::{ActivationFormat, Convert, Kernel, Linear, MatvecQ8Gated, Prefetch, stride},
        tile,
    },
    quant::PackFormat,
};

use crate::{combinations::on_devices_where, epilogue::check_forms, harness::*, weights::weights};

/// gelu(gate) · up of one row, with `n` results and `k` columns.
fn check_gated(gpu: &Gpu, format: PackFormat, n: usize, k: usize) {
    let matrix = weights(format, 2 * n, k, 3);
    let x = random(k, 4);
    let mut products = vec![0.0; 2 * n];
    ops::matmul_q8(&matrix, &ops::quantize_rows(&x, k), &mut products);
    let (gate, up) = products.split_at_mut(n);
    ops::gelu_mul(gate, up);
    let linear = Linear {
        format,
        rows: 2 * n,
        cols: k,
        y_stride: 2 * n,
        y_offset: 0,
        softcap: None,
        over_outputs: false,
        interleaved16: true,
    };
    let kernel = MatvecQ8Gated(linear);
    assert!(kernel.can_run(gpu.target()));
    let own = || {
        let (quants, groups) = (zeros(gpu, stride(k) / 4), zeros(gpu, stride(k) / 16));
        let convert =
            Convert { cols: k, epilogue: ActivationFormat::Q8Block32, over_outputs: false };
        let x = upload_rows(gpu, &x, k);
        let buffers = [("x", &x), ("quants", &quants), ("quant_groups", &groups)];
        run(gpu, &convert, &buffers, 1, 0);
        let data = upload(gpu, &tile(&matrix.packed().data, format.data_words(k), 4));
        let scales =
            upload(gpu, &tile(&matrix.packed().scales, format.scale_words(k), format.scale_unit()));
        let step = gpu.uniform("step", [1, 0, 0, 0]).expect("a uniform");
        let names = ["data", "scales", "x", "x_groups", "step"];
        names.into_iter().zip([data, scales, quants, groups, step]).collect()
    };
    let as_q8 = |epilogue| {
        (epilogue == ActivationFormat::Q8Block32).then(|| Box::new(kernel) as Box<dyn Kernel>)
    };
    let step = StepSize { rows: 1, outputs: 0, keys: 0 };
    check_forms(gpu, &format!("gated {format:?} {n}×{k}"), &as_q8, &own, step, (gate, n), 1e-3);
}

#[test]
fn gated_products() {
    let formats =
        [PackFormat::INT4, PackFormat::Int { bits: 4, group: 32, offset: true }, PackFormat::Q4K];
    let sizes = [(32, 32), (96, 416), (64, 2112)];
    let is_possible = |gpu: &Gpu, _| gpu.tuning().large_workgroups;
    for (gpu, [format, size]) in on_devices_where([formats.len(), sizes.len()], is_possible) {
        let (n, k) = sizes[size];
        check_gated(gpu, formats[format], n, k);
    }
}

/// A prefetch has no result. So the test checks that it runs and changes nothing.
#[test]
fn prefetch_leaves_all_as_it_is() {
    for gpu in devices() {
        for (words, ahead_bytes) in [(64, 0), (40_000, 1 << 20), (1_600_000, 64 << 10)] {
            let values: Vec<u32> = (0..words as u32).collect();
            let (data, scales, sink) =
                (upload(gpu, &values), upload(gpu, &values[..words / 8]), zeros(gpu, 1));
            let (data_bytes, scale_bytes) = (4 * words, words / 2);
            let kernel = Prefetch {
                data_bytes,
                scale_bytes,
                later_bytes: [scale_bytes, data_bytes],
                ahead_bytes,
            };
            let own = [("data", &data), ("scales", &scales), ("sink", &sink)];
            let later = [("later_data", &scales), ("later_scales", &data)];
            run(gpu, &kernel, &[&own[..], &later].concat(), 1, 0);
            assert_eq!(download::<u32>(gpu, &data, words), values);
            assert_eq!(download::<u32>(gpu, &sink, 1), [0]);
        }
    }
}
