//! Products of weights and activations against their twins, in every number format.

use gemma4_wgpu::{
    cpu::{CpuMatrix, ops},
    gpu::{
        Gpu, GpuBuffer,
        kernels::{
            ActivationFormat, Convert, Linear, Matmul, MatmulCoop, MatmulRowPerInvocation, Matvec,
            MatvecQ8, MatvecQ8Split, ROW_TILE, stride,
        },
        tile,
    },
    quant::PackFormat,
};
use proptest::prelude::*;

use crate::{
    combinations::{on_devices, on_devices_where, random_cases},
    emulated::Emulated,
    harness::*,
    long::is_long,
    weights::weights,
};

pub struct Case {
    pub format: PackFormat,
    /// Activation rows.
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub softcap: Option<f32>,
    /// Whether the rows are those of a step's outputs.
    pub over_outputs: bool,
    /// Whether weights are interleaved in runs of 16 rows.
    pub interleaved16: bool,
    pub seed: u64,
}

impl Case {
    /// The product over the step's rows. Rows of results are `y_stride` wide and begin at
    /// `y_offset`.
    pub fn linear(&self, y_stride: usize, y_offset: usize) -> Linear {
        Linear {
            format: self.format,
            rows: self.n,
            cols: self.k,
            y_stride,
            y_offset,
            softcap: self.softcap,
            over_outputs: false,
            interleaved16: self.interleaved16,
        }
    }
}

/// Results `[m, n]` of a kernel, at an offset in wider rows.
struct Output {
    buffer: GpuBuffer,
    y_stride: usize,
    y_offset: usize,
}

impl Output {
    fn new(gpu: &Gpu, case: &Case) -> Self {
        let (y_offset, y_stride) = (3, case.n + 5);
        Output { buffer: zeros(gpu, case.m * y_stride), y_stride, y_offset }
    }

    fn linear(&self, case: &Case, over_outputs: bool) -> Linear {
        Linear { over_outputs, ..case.linear(self.y_stride, self.y_offset) }
    }

    /// The results. The values around them must still be zero.
    fn results(&self, gpu: &Gpu, case: &Case) -> Vec<f32> {
        let all: Vec<f32> = download(gpu, &self.buffer, case.m * self.y_stride);
        let mut results = Vec::new();
        for row in all.chunks_exact(self.y_stride) {
            let (before, rest) = row.split_at(self.y_offset);
            let (inside, after) = rest.split_at(case.n);
            assert!(before.iter().chain(after).all(|&x| x == 0.0), "wrote outside its place");
            results.extend_from_slice(inside);
        }
        results
    }
}

/// A case's weights and activations, and their product.
pub struct Operands {
    matrix: CpuMatrix,
    x: Vec<f32>,
    pub expected: Vec<f32>,
}

impl Operands {
    pub fn new(case: &Case) -> Self {
        let matrix = weights(case.format, case.n, case.k, case.seed);
        let x = random(case.m * case.k, case.seed + 1);
        let mut expected = vec![0.0; case.m * case.n];
        ops::matmul(&matrix, &x, &mut expected);
        if let Some(cap) = case.softcap {
            ops::softcap(&mut expected, cap);
        }
        Operands { matrix, x, expected }
    }

    /// Data, scales, activations.
    pub fn upload(&self, gpu: &Gpu, case: &Case) -> [GpuBuffer; 3] {
        let packed = self.matrix.packed();
        let (data, scales) = match case.interleaved16 {
            true => (
                tile(&packed.data, case.format.data_words(case.k), 4),
                tile(&packed.scales, case.format.scale_words(case.k), case.format.scale_unit()),
            ),
            false => (packed.data.clone(), packed.scales.clone()),
        };
        [upload(gpu, &data), upload(gpu, &scales), upload_rows(gpu, &self.x, case.k)]
    }
}

fn check(gpu: &Gpu, case: &Case) {
    let operands = Operands::new(case);
    let [data, scales, device_x] = operands.upload(gpu, case);
    let inputs = [("data", &data), ("scales", &scales), ("x", &device_x)];
    let Operands { matrix, x, expected } = operands;
    let step = gpu.uniform("step", [case.m as u32, case.m as u32, 0, 0]).expect("a uniform");
    let what = format!("{:?} {}×{}×{}", case.format, case.m, case.n, case.k);
    let f16_tolerance = if gpu.variant().f16 { 4e-3 } else { 3e-5 };
    let over_outputs = case.over_outputs;
    let output = Output::new(gpu, case);
    let kernel = Matvec(output.linear(case, over_outputs));
    run(gpu, &kernel, &[inputs[0], inputs[1], inputs[2], ("y", &output.buffer)], case.m, case.m);
    assert_close(&format!("matvec {what}"), gpu, &output.results(gpu, case), &expected, 3e-5);

    let output = Output::new(gpu, case);
    let kernel = Matmul(output.linear(case, over_outputs));
    run(
        gpu,
        &kernel,
        &[inputs[0], inputs[1], inputs[2], ("y", &output.buffer), ("step", &step)],
        case.m,
        case.m,
    );
    assert_close(
        &format!("matmul {what}"),
        gpu,
        &output.results(gpu, case),
        &expected,
        f16_tolerance,
    );

    // The kernel is the same whatever else the variant chooses.
    if MatmulRowPerInvocation::can_run(gpu.target()) && !gpu.variant().f16 {
        let output = Output::new(gpu, case);
        let kernel = MatmulRowPerInvocation(output.linear(case, over_outputs));
        run(
            gpu,
            &kernel,
            &[inputs[0], inputs[1], inputs[2], ("y", &output.buffer), ("step", &step)],
            case.m,
            case.m,
        );
        assert_close(
            &format!("matmul_row_per_invocation {what}"),
            gpu,
            &output.results(gpu, case),
            &expected,
            3e-5,
        );
    }
    if gpu.variant().coop.is_some() {
        check_coop(
            gpu,
            case,
            &expected,
            [&data, &scales, &device_x],
            &[(1, 0), (3, 0), (3, tail(case))],
        );
    }
    if Linear::supports_q8(case.format) {
        check_q8(gpu, case, &matrix, &x, [&data, &scales, &device_x]);
    }
}

/// The first row of a product over the last rows alone, 0 if there are few rows.
fn tail(case: &Case) -> usize {
    if case.n > 16 { 16 } else { 0 }
}

/// The product on cooperative matrices, from a weight row on.
/// It runs for each number of workgroups that divide the columns.
/// Devices with f16 but without such matrices emulate those of 8 × 8.
fn check_coop(
    gpu: &Gpu,
    case: &Case,
    expected: &[f32],
    [data, scales, device_x]: [&GpuBuffer; 3],
    splits_and_rows: &[(usize, usize)],
) {
    let emulated = gpu.variant().coop.is_none();
    let target =
        if emulated { Emulated::<MatmulCoop>::target(gpu.target()) } else { *gpu.target() };
    let (y_stride, y_offset) = ((case.n + 36).next_multiple_of(4), 16);
    let linear = case.linear(y_stride, y_offset);
    if !MatmulCoop::can_run(&target, &linear) {
        return;
    }
    let rows = case.m.next_multiple_of(16);
    let m_stride = case.m.next_multiple_of(ROW_TILE);
    let step = gpu.uniform("step", [case.m as u32, 0, 0, 0]).expect("a uniform");
    let halves = zeros(gpu, m_stride * stride(case.k) / 2);
    let convert = Convert {
        cols: case.k,
        epilogue: ActivationFormat::F16Tiled { m_stride, block: 32 },
        over_outputs: false,
    };
    run(gpu, &convert, &[("x", device_x), ("halves", &halves)], case.m, 0);
    for &(splits, first_row) in splits_and_rows {
        let split_stride = rows * y_stride;
        let y = zeros(gpu, splits * split_stride);
        let linear = Linear { rows: case.n - first_row, ..linear };
        let kernel = MatmulCoop { linear, first_row, m_stride, splits, split_stride };
        let buffers =
            [("data", data), ("scales", scales), ("x", &halves), ("y", &y), ("step", &step)];
        match emulated {
            true => run(gpu, &Emulated(kernel), &buffers, case.m, 0),
            false => run(gpu, &kernel, &buffers, case.m, 0),
        }
        let rest = Case { n: linear.rows, ..*case };
        let found = sum_of_parts(gpu, &y, &rest, [splits, rows], [y_stride, y_offset]);
        let of_rows: Vec<f32> =
            expected.chunks(case.n).flat_map(|row| &row[first_row..]).copied().collect();
        let what =
            format!("matmul_coop {:?} {}×{}×{} in {splits}", case.format, case.m, case.n, case.k);
        assert_close(&format!("{what} from {first_row} on"), gpu, &found, &of_rows, 4e-3);
    }
}

/// Checks the int8 activations and the product with them.
fn check_q8(
    gpu: &Gpu,
    case: &Case,
    matrix: &CpuMatrix,
    x: &[f32],
    [data, scales, device_x]: [&GpuBuffer; 3],
) {
    let twin = ops::quantize_rows(x, case.k);
    let mut expected = vec![0.0; case.m * case.n];
    ops::matmul_q8(matrix, &twin, &mut expected);
    if let Some(cap) = case.softcap {
        ops::softcap(&mut expected, cap);
    }
    let cols = stride(case.k);
    // Products may read rows past the end. These rows are NaN here.
    let room = case.m.next_power_of_two();
    let (quants, groups) = (
        upload(gpu, &vec![u32::MAX; room * cols / 4]),
        upload(gpu, &vec![u32::MAX; room * cols / 16]),
    );
    let convert =
        Convert { cols: case.k, epilogue: ActivationFormat::Q8Block32, over_outputs: false };
    run(
        gpu,
        &convert,
        &[("x", device_x), ("quants", &quants), ("quant_groups", &groups)],
        case.m,
        0,
    );
    let values: Vec<i8> = download(gpu, &quants, case.m * cols);
    // Division is not exact on every device.
    // A value near the middle of two integers may round to either.
    let differing = values.iter().zip(&twin.values).filter(|(a, b)| a != b).count();
    assert!(
        differing * 500 <= values.len(),
        "{differing} of {} int8 activations differ",
        values.len()
    );
    assert!(values.iter().zip(&twin.values).all(|(a, b)| a.abs_diff(*b) <= 1));
    let pairs: Vec<[f32; 2]> = download(gpu, &groups, twin.scales.len());
    let device_scales: Vec<f32> = pairs.iter().map(|pair| pair[0]).collect();
    assert_close("activation scales", gpu, &device_scales, &twin.scales, 1e-6);

    let output = Output::new(gpu, case);
    let kernel = MatvecQ8(output.linear(case, false));
    let weights = [("data", data), ("scales", scales)];
    let x_in = [("x", &quants), ("x_groups", &groups)];
    let y = ("y", &output.buffer);
    run(gpu, &kernel, &[weights[0], weights[1], x_in[0], x_in[1], y], case.m, case.m);
    let what = format!("matvec_q8 {:?} {}×{}×{}", case.format, case.m, case.n, case.k);
    // One value that rounds to another integer changes a sum by one scale.
    let tolerance = 3e-4 + 0.01 * (differing > 0) as u8 as f32;
    assert_close(&what, gpu, &output.results(gpu, case), &expected, tolerance);

    if MatvecQ8Split::runs_on(gpu.target()) && case.m <= MatvecQ8Split::MOST_ROWS {
        for splits in if case.interleaved16 { 1..4 } else { 1..2 } {
            let found = split_products(gpu, case, splits, [data, scales, &quants, &groups]);
            assert_close(&format!("{splits} splits of {what}"), gpu, &found, &expected, tolerance);
        }
    }
}

/// The product of a few rows of int8 activations, summed over `splits` parts.
fn split_products(gpu: &Gpu, case: &Case, splits: usize, inputs: [&GpuBuffer; 4]) -> Vec<f32> {
    let (y_stride, y_offset) = (case.n + 36, 16);
    let linear = case.linear(y_stride, y_offset);
    let m = MatvecQ8Split::room(case.m);
    let y = zeros(gpu, splits * m * y_stride);
    let step = gpu.uniform("step", [case.m as u32, 0, 0, 0]).expect("a uniform");
    let kernel = MatvecQ8Split { linear, m, splits, split_stride: m * y_stride };
    let [data, scales, quants, groups] = inputs;
    let weights = [("data", data), ("scales", scales)];
    let x_in = [("x", quants), ("x_groups", groups)];
    let others = [("step", &step), ("y", &y)];
    run(gpu, &kernel, &[weights, x_in, others].concat(), case.m, case.m);
    sum_of_parts(gpu, &y, case, [splits, m], [y_stride, y_offset])
}

/// The sum of the parts `[splits, rows, y_stride]`, for `n` columns from `y_offset` on.
/// All values outside these columns and the case's rows must be zero.
pub fn sum_of_parts(
    gpu: &Gpu,
    y: &GpuBuffer,
    case: &Case,
    [splits, rows]: [usize; 2],
    [y_stride, y_offset]: [usize; 2],
) -> Vec<f32> {
    let all: Vec<f32> = download(gpu, y, splits * rows * y_stride);
    let mut sums = vec![0.0; case.m * case.n];
    for (at, value) in all.into_iter().enumerate() {
        let (row, col) = (at / y_stride % rows, at % y_stride);
        if row < case.m && (y_offset..y_offset + case.n).contains(&col) {
            sums[row * case.n + col - y_offset] += value;
        } else {
            assert_eq!(value, 0.0, "wrote outside its place");
        }
    }
    sums
}

#[test]
fn awkward_sizes() {
    let sizes = [(1, 1, 1, None), (3, 5, 33, None), (2, 67, 96, Some(2.0)), (70, 130, 160, None)];
    for (gpu, [format, size, over_outputs]) in on_devices([PackFormat::ALL.len(), sizes.len(), 2]) {
        let (format, (m, n, k, softcap)) = (PackFormat::ALL[format], sizes[size]);
        let over_outputs = over_outputs == 1;
        check(gpu, &Case { format, m, n, k, softcap, over_outputs, interleaved16: false, seed: 7 });
    }
}

/// Sizes for cooperative matrices: whole and partial tiles, one block and many.
/// Devices without such matrices test one size for each format.
#[test]
fn tiles() {
    // The last variant has cooperative matrices if the adapter has them.
    let last = devices().last().expect("a variant");
    let has_matrices = last.variant().coop.is_some();
    let sizes =
        [(1, 16, 32), (2, 48, 160), (3, 112, 96), (5, 48, 96), (130, 144, 96), (70, 272, 416)];
    let is_possible = |gpu: &Gpu, [format, size, interleaved16]: [usize; 3]| {
        let is_own_size = (format + 3 * interleaved16) % sizes.len() == size;
        // Only integers in whole groups of 32 columns are interleaved.
        std::ptr::eq(gpu, last)
            && (interleaved16 == 0 || Linear::supports_q8(PackFormat::ALL[format]))
            && (has_matrices || is_own_size || is_long())
    };
    for (gpu, [format, size, interleaved16]) in
        on_devices_where([PackFormat::ALL.len(), sizes.len(), 2], is_possible)
    {
        let (format, (m, n, k), interleaved16) =
            (PackFormat::ALL[format], sizes[size], interleaved16 == 1);
        let case =
            Case { format, m, n, k, softcap: None, over_outputs: false, interleaved16, seed: 9 };
        check(gpu, &case);
    }
}

/// Prompt products as on Macs, on other machines.
/// All formats are tested, and one of them in sizes with all kinds of edges.
#[test]
fn emulated_matrices() {
    let with_f16: Vec<&Gpu> =
        devices().iter().filter(|gpu| gpu.variant().f16 && gpu.variant().coop.is_none()).collect();
    assert_eq!(with_f16.is_empty(), !devices()[0].facts().shader_f16);
    let check = |gpu: &Gpu, case: &Case, splits_and_rows: &[(usize, usize)]| {
        let operands = Operands::new(case);
        let [data, scales, x] = operands.upload(gpu, case);
        check_coop(gpu, case, &operands.expected, [&data, &scales, &x], splits_and_rows);
    };
    // Devices with and without runtime checks alternate. In long runs each size runs on both.
    let sizes = [(1, 1, 1), (3, 5, 33), (9, 8, 64), (31, 144, 32), (70, 272, 416)];
    for (index, (m, n, k)) in sizes.into_iter().enumerate() {
        let (format, softcap, over_outputs, interleaved16) = (PackFormat::INT4, None, false, false);
        let case = Case { format, m, n, k, softcap, over_outputs, interleaved16, seed: 11 };
        for (which, gpu) in with_f16.iter().rev().take(2).enumerate() {
            if is_long() || which == index % 2 {
                check(gpu, &case, &[(1, 0), (3, tail(&case))]);
            }
        }
    }
    for gpu in with_f16.iter().rev().take(1) {
        for format in PackFormat::ALL.into_iter().filter(|format| Linear::supports_q8(*format)) {
            for (n, interleaved16) in [(130, false), (144, true)] {
                let case = Case {
                    format,
                    m: 34,
                    n,
                    k: 160,
                    softcap: None,
                    over_outputs: false,
                    interleaved16,
                    seed: 13,
                };
                check(gpu, &case, &[(2, tail(&case))]);
            }
        }
    }
}

/// More row blocks than fit one dispatch dimension.
#[test]
fn many_rows() {
    let gpu = &devices()[0];
    assert_eq!(gpu.variant().subgroups, None, "four rows a workgroup");
    let (m, n, k, format) = (1, 4 * 65535 + 9, 8, PackFormat::INT8);
    let (softcap, over_outputs, interleaved16) = (None, false, false);
    check(gpu, &Case { format, m, n, k, softcap, over_outputs, interleaved16, seed: 3 });
}

proptest! {
    #![proptest_config(random_cases(24))]

    #[test]
    fn any_size(
        m in 1usize..80,
        n in 1usize..200,
        k in 1usize..400,
        format in prop::sample::select(PackFormat::ALL.to_vec()),
        seed: u32,
        device: prop::sample::Index,
    ) {
        let (softcap, over_outputs, interleaved16) = (None, seed % 2 == 1, false);
        let seed = u64::from(seed);
        let case = Case { format, m, n, k, softcap, over_outputs, interleaved16, seed };
        check(device.get(devices()), &case);
    }
}
