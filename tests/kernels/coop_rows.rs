//! Products of 9 to 64 rows of activations on matrices of 16 × 16 against their twin.
//! Devices without such matrices emulate them.

use gemma4_wgpu::{
    gpu::{
        Coop, CoopRows, CoopRowsShape, Gpu, Grid, KernelSource, KernelTarget, Tuning,
        kernels::{ActivationFormat, Convert, Kernel, Linear, MatmulCoopRows, stride},
    },
    quant::PackFormat,
};

use crate::{
    emulated::Emulated16,
    harness::*,
    linear::{Case, Operands, sum_of_parts},
    long::is_long,
};

/// A kernel in a shape that a device's tuning may not choose.
struct Shaped(MatmulCoopRows, &'static [CoopRowsShape; 1]);

impl Shaped {
    fn target(&self, target: &KernelTarget) -> KernelTarget {
        let choices = CoopRows { shapes: self.1, enough: 1, split: 1 };
        let tuning = Tuning { coop_rows: [choices; 3], ..target.tuning };
        KernelTarget { tuning, ..*target }
    }
}

impl Kernel for Shaped {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        self.0.source(&self.target(target))
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        self.0.grid(&self.target(target))
    }
}

const fn shape(workgroup: usize, passes: usize, column_teams: usize) -> [CoopRowsShape; 1] {
    [CoopRowsShape { workgroup, passes, column_teams }]
}

/// Shapes that differ in every part.
static SHAPES: [[CoopRowsShape; 1]; 4] =
    [shape(128, 1, 1), shape(64, 2, 1), shape(128, 2, 2), shape(128, 1, 4)];

/// Devices that can run the kernels, those with the most features first.
fn devices_with_f16() -> Vec<&'static Gpu> {
    let all: Vec<&Gpu> = devices().iter().rev().filter(|gpu| gpu.variant().f16).collect();
    assert_eq!(all.is_empty(), !devices()[0].facts().shader_f16);
    all
}

/// The results of a case in a kernel for `m` rows, in one of [`SHAPES`].
fn check(gpu: &Gpu, case: &Case, m: usize, splits: usize, shape: usize) {
    let operands = Operands::new(case);
    let [data, scales, x] = operands.upload(gpu, case);
    // Rows past the end are NaN. They must not change other rows.
    let halves = upload(gpu, &vec![0x7e00_7e00u32; m * stride(case.k) / 2]);
    let convert = Convert {
        cols: case.k,
        epilogue: ActivationFormat::F16Tiled { m_stride: m, block: MatmulCoopRows::BLOCK },
        over_outputs: case.over_outputs,
    };
    // The other number of rows is larger than the buffers.
    let [rows, outputs] = if case.over_outputs { [99, case.m] } else { [case.m, 99] };
    run(gpu, &convert, &[("x", &x), ("halves", &halves)], rows, outputs);
    let (y_stride, y_offset, y_rows) = (case.n + 5, 3, m);
    let linear = Linear { over_outputs: case.over_outputs, ..case.linear(y_stride, y_offset) };
    let y = zeros(gpu, splits * y_rows * y_stride);
    let step = gpu.uniform("step", [rows as u32, outputs as u32, 0, 0]).expect("a uniform");
    let kernel = MatmulCoopRows { linear, m, splits, split_stride: y_rows * y_stride };
    let shaped = Shaped(kernel, &SHAPES[shape]);
    let buffers =
        [("data", &data), ("scales", &scales), ("x", &halves), ("y", &y), ("step", &step)];
    match gpu.variant().coop {
        Some(Coop::Sixteen) => run(gpu, &shaped, &buffers, rows, outputs),
        _ => run(gpu, &Emulated16(shaped), &buffers, rows, outputs),
    }
    let found = sum_of_parts(gpu, &y, case, [splits, y_rows], [y_stride, y_offset]);
    let what = format!(
        "matmul_coop_rows {:?} {} of {m} rows, {}×{} in {splits}, {:?}",
        case.format, case.m, case.n, case.k, SHAPES[shape]
    );
    assert_close(&what, gpu, &found, &operands.expected, 4e-3);
}

#[test]
fn every_format() {
    for gpu in devices_with_f16().into_iter().take(1) {
        let formats = PackFormat::ALL.into_iter().filter(|format| Linear::supports_q8(*format));
        for (index, format) in formats.enumerate() {
            for (n, interleaved16) in [(67, false), (80, true)] {
                let (softcap, over_outputs, seed) = (None, false, 21);
                let (m, k) = ([9, 31, 50][index % 3], 160);
                let case = Case { format, m, n, k, softcap, over_outputs, interleaved16, seed };
                let splits = if interleaved16 { 2 } else { 1 };
                check(gpu, &case, MatmulCoopRows::room(m), splits, index % SHAPES.len());
            }
        }
    }
}

/// Rooms, shapes and splits, with more parts than blocks of columns in some.
#[test]
fn every_shape() {
    let cases = [
        (16, 16, 1, [16, 32], false),
        (16, 11, 3, [130, 416], true),
        (32, 32, 1, [33, 33], true),
        (32, 17, 16, [64, 96], false),
        (64, 64, 2, [20, 288], false),
        (64, 33, 1, [144, 64], true),
    ];
    for (index, (room, m, splits, [n, k], over_outputs)) in cases.into_iter().enumerate() {
        let softcap = (splits == 1).then_some(2.0);
        let (format, interleaved16, seed) = (PackFormat::INT4, false, 23);
        let case = Case { format, m, n, k, softcap, over_outputs, interleaved16, seed };
        // Devices with and without runtime checks alternate. Long runs have all combinations.
        for (which, gpu) in devices_with_f16().into_iter().take(2).enumerate() {
            for shape in 0..SHAPES.len() {
                if is_long() || (which == index % 2 && (index + shape).is_multiple_of(2)) {
                    check(gpu, &case, room, splits, shape);
                }
            }
        }
    }
}
