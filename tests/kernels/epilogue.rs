//! The formats in which kernels write activations.

use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        Gpu, GpuBuffer, StepSize,
        kernels::{ActivationFormat, Convert, Kernel, ROW_TILE, stride},
    },
};
use half::f16;

use crate::{combinations::on_devices, harness::*};

/// The formats in which a device can write this number of rows.
fn forms(gpu: &Gpu, rows: usize) -> Vec<ActivationFormat> {
    let mut forms = vec![ActivationFormat::F32, ActivationFormat::Q8Block32];
    if gpu.facts().shader_f16 {
        for block in [16, 32] {
            let m_stride = rows.next_multiple_of(ROW_TILE);
            forms.push(ActivationFormat::F16Tiled { m_stride, block });
        }
    }
    forms
}

/// Runs a kernel in every format that it has and compares its results `[rows, cols]`.
/// `kernel` returns `None` for other formats. `own` makes buffers that the kernel may change.
pub fn check_forms(
    gpu: &Gpu,
    what: &str,
    kernel: &dyn Fn(ActivationFormat) -> Option<Box<dyn Kernel>>,
    own: &dyn Fn() -> Vec<(&'static str, GpuBuffer)>,
    step: StepSize,
    (expected, cols): (&[f32], usize),
    tolerance: f32,
) {
    let (rows, width) = (expected.len() / cols, stride(cols));
    for form in forms(gpu, rows) {
        let Some(kernel) = kernel(form) else { continue };
        let what = format!("{what} as {form:?}");
        let own = own();
        let outputs = match form {
            ActivationFormat::F32 => vec![zeros(gpu, rows * width)],
            ActivationFormat::Q8Block32 => {
                vec![zeros(gpu, rows * width / 4), zeros(gpu, rows * width / 16)]
            }
            ActivationFormat::F16Tiled { m_stride, .. } => vec![zeros(gpu, m_stride * width / 2)],
        };
        let buffers = own.iter().map(|(name, buffer)| (*name, buffer));
        let outputs_by_name = form.bindings().iter().copied().zip(&outputs);
        let buffers: Vec<Named> = buffers.chain(outputs_by_name).collect();
        run_step(gpu, &*kernel, &buffers, step);
        match form {
            ActivationFormat::F32 => assert_close(
                &what,
                gpu,
                &download_rows(gpu, &outputs[0], rows, cols),
                expected,
                tolerance,
            ),
            ActivationFormat::Q8Block32 => {
                check_q8(gpu, &what, &outputs, (expected, cols), tolerance)
            }
            ActivationFormat::F16Tiled { m_stride, block } => {
                let halves: Vec<f16> = download(gpu, &outputs[0], m_stride * width);
                let at = |row: usize, col: usize| {
                    let within = col % block / 4 * 4 + [0, 2, 1, 3][col % 4];
                    halves[(col / block * m_stride + row) * block + within].to_f32()
                };
                let found: Vec<f32> = (0..rows)
                    .flat_map(|row| (0..cols).map(move |col| (row, col)))
                    .map(|(row, col)| at(row, col))
                    .collect();
                assert_close(&what, gpu, &found, expected, tolerance + 1e-3);
                assert!(
                    (0..rows).all(|row| (cols..width).all(|col| at(row, col) == 0.0)),
                    "{what}: padding was written"
                );
            }
        }
    }
}

/// Compares int8 values and their groups with the twin's.
fn check_q8(
    gpu: &Gpu,
    what: &str,
    outputs: &[GpuBuffer],
    (expected, cols): (&[f32], usize),
    tolerance: f32,
) {
    let twin = ops::quantize_rows(expected, cols);
    let values: Vec<i8> = download(gpu, &outputs[0], twin.values.len());
    // Values that differ in their last bits may round to different integers.
    // Groups that consist only of rounding errors of zero need not agree.
    let largest = twin.scales.iter().fold(0f32, |largest, &scale| largest.max(scale));
    let groups = values.chunks_exact(32).zip(twin.values.chunks_exact(32)).zip(&twin.scales);
    for ((found, expected), _) in
        groups.filter(|(_, scale)| **scale == 0.0 || **scale > tolerance * largest)
    {
        assert!(
            found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1),
            "{what}: {found:?}, expected {expected:?}"
        );
    }
    let pairs: Vec<[f32; 2]> = download(gpu, &outputs[1], twin.scales.len());
    let scales: Vec<f32> = pairs.iter().map(|pair| pair[0]).collect();
    assert_close(&format!("{what}, scales"), gpu, &scales, &twin.scales, tolerance);
    for (group, pair) in values.chunks_exact(32).zip(&pairs) {
        let sum: i32 = group.iter().map(|&q| i32::from(q)).sum();
        assert!(
            (pair[1] - pair[0] * sum as f32).abs() <= 1e-5 * pair[1].abs(),
            "{what}: {pair:?}, sum {sum}"
        );
    }
}

#[test]
fn converts() {
    let shapes = [(1, 1, false), (3, 31, true), (2, 96, false), (5, 1056, true)];
    for (gpu, [shape]) in on_devices([shapes.len()]) {
        let (rows, cols, over_outputs) = shapes[shape];
        let x = random(rows * cols, 11);
        let kernel =
            |epilogue| Some(Box::new(Convert { cols, epilogue, over_outputs }) as Box<dyn Kernel>);
        // Only the count that the kernel uses is right.
        let others = rows - 1;
        let (rows, outputs) = if over_outputs { (others, rows) } else { (rows, others) };
        let step = StepSize { rows, outputs, keys: 0 };
        check_forms(
            gpu,
            "convert",
            &kernel,
            &|| vec![("x", upload_rows(gpu, &x, cols))],
            step,
            (&x, cols),
            1e-6,
        );
    }
}
