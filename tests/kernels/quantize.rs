//! Half-quadratic quantization against its twin.

use gemma4_wgpu::{
    gpu::Gpu,
    quant::{
        Dtype, PackedRows,
        methods::{Method, Spec},
    },
};
use half::{bf16, f16};
use pollster::block_on;

use crate::{combinations::on_devices, harness::*};

/// The bits, and whether the format is symmetric (without an offset).
const INTEGERS: [(u8, bool); 4] = [(4, true), (4, false), (8, true), (8, false)];
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// Values in their stored type, and as f32.
fn stored(dtype: Dtype, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        Dtype::F16 => values
            .iter()
            .map(|&x| f16::from_f32(x))
            .map(|x| (x.to_le_bytes(), x.to_f32()))
            .unzip_bytes(),
        Dtype::BF16 => values
            .iter()
            .map(|&x| bf16::from_f32(x))
            .map(|x| (x.to_le_bytes(), x.to_f32()))
            .unzip_bytes(),
        _ => values.iter().map(|&x| (x.to_le_bytes(), x)).unzip_bytes(),
    }
}

trait UnzipBytes {
    fn unzip_bytes(self) -> (Vec<u8>, Vec<f32>);
}

impl<const N: usize, I: Iterator<Item = ([u8; N], f32)>> UnzipBytes for I {
    fn unzip_bytes(self) -> (Vec<u8>, Vec<f32>) {
        let (bytes, values): (Vec<_>, Vec<_>) = self.unzip();
        (bytes.concat(), values)
    }
}

/// Weights of a bell-shaped distribution around a mean, some of them outliers.
fn weights(len: usize, seed: u64) -> Vec<f32> {
    let uniform = random(6 * len, seed);
    let bell = uniform.chunks_exact(6).map(|six| 0.02 * six.iter().sum::<f32>());
    bell.enumerate().map(|(i, x)| if i % 67 == 3 { 5.0 * x } else { x + 0.004 }).collect()
}

/// The value that each group's search minimizes.
/// It is the sum of squared errors, each times mean square + weight².
fn errors(spec: &Spec, values: &[f32], packed: &PackedRows) -> Vec<f64> {
    let mut errors = Vec::new();
    for (row, values) in values.chunks_exact(packed.cols).enumerate() {
        let mut rounded = vec![0.0; packed.cols];
        packed.dequantize_row(row, &mut rounded);
        let group = spec.group_columns(packed.cols);
        for (values, rounded) in values.chunks(group).zip(rounded.chunks(group)) {
            let square = |x: f32| x as f64 * x as f64;
            let mean = values.iter().map(|x| square(*x)).sum::<f64>() / values.len() as f64;
            errors.push(
                values.iter().zip(rounded).map(|(x, r)| square(x - r) * (mean + square(*x))).sum(),
            );
        }
    }
    errors
}

/// The fraction by which a group's error may exceed its twin's.
/// An offset has steps of f16, which are some hundredths of a level.
/// A device's rounding may choose the neighbouring step, and then the rest of the search differs.
/// With 8 bits, a step of the scale moves the outermost level by 127 · 2⁻¹¹ of a level.
/// With 4 bits it is a twentieth of that.
fn allowed(spec: &Spec) -> f64 {
    match (spec.symmetric, spec.bits) {
        (true, 4) => 1e-4,
        (true, _) => 0.1,
        (false, _) => 0.05,
    }
}

/// Quantizes on both sides.
/// Returns the number of groups, and the number with another error than the twin's.
fn check(gpu: &Gpu, spec: Spec, dtype: Dtype, values: &[f32], cols: usize) -> (usize, usize) {
    let (bytes, values) = stored(dtype, values);
    let rows = values.len() / cols;
    let chosen = block_on(gpu.choose_steps(&spec, dtype, &bytes, rows, cols)).unwrap();
    // The twin never chooses an infinite scale.
    assert!(
        chosen.iter().all(|word| f16::from_bits(*word as u16).is_finite()),
        "{spec:?}: {chosen:x?}"
    );
    let (actual, squares) = spec.quantize_chosen(dtype, &bytes, rows, cols, &chosen).unwrap();
    let (expected, expected_squares) = spec.quantize(dtype, &bytes, rows, cols).unwrap();
    let what = format!("{spec:?}, {dtype:?}, {cols} columns on {:?}", gpu.target());
    assert!(
        (squares.error / expected_squares.error - 1.0).abs() < 1e-3,
        "{what}: {squares:?} {expected_squares:?}"
    );
    let all = errors(&spec, &values, &actual).into_iter().zip(errors(&spec, &values, &expected));
    let (mut groups, mut others) = (0, 0);
    for (group, (actual, expected)) in all.enumerate() {
        assert!(
            actual <= expected * (1.0 + allowed(&spec)),
            "{what}: group {group} is off by {actual}, its twin by {expected}"
        );
        groups += 1;
        others += (actual != expected) as usize;
    }
    (groups, others)
}

#[test]
fn hqq_chooses_what_its_twin_does() {
    // Even and odd numbers of rows, whole and partial groups.
    let shapes = [(Some(16), 40, 112), (Some(32), 70, 199), (Some(64), 9, 200), (None, 5, 333)];
    let mut counts = [(0, 0); INTEGERS.len()];
    for (gpu, [integer, dtype, shape]) in on_devices([INTEGERS.len(), DTYPES.len(), shapes.len()]) {
        let ((bits, symmetric), (group, rows, cols)) = (INTEGERS[integer], shapes[shape]);
        let spec = Spec { bits, group, symmetric, method: Method::Hqq };
        let values = weights(rows * cols, 7 * cols as u64 + dtype as u64);
        let (groups, others) = check(gpu, spec, DTYPES[dtype], &values, cols);
        counts[integer].0 += groups;
        counts[integer].1 += others;
    }
    for ((bits, symmetric), (groups, others)) in INTEGERS.into_iter().zip(counts) {
        assert!(500 * others <= groups, "{bits} bits, {symmetric}: {others} of {groups} groups");
    }
}

/// Zeros, single values, values with f16's smallest scales, and the largest that have a scale.
#[test]
fn hqq_of_extremes() {
    for (gpu, [integer]) in on_devices([INTEGERS.len()]) {
        let (bits, symmetric) = INTEGERS[integer];
        let spec = Spec { bits, group: Some(32), symmetric, method: Method::Hqq };
        for factor in [0.0, 1e-30, 1e-9, 2e-7, 1e-6, 3e-5, 1e-3, 1e5, 2e5] {
            let values: Vec<f32> = random(96, 5).iter().map(|x| factor * x).collect();
            let (bytes, values) = stored(Dtype::F32, &values);
            for cols in [1, 96] {
                let rows = 96 / cols;
                let chosen =
                    block_on(gpu.choose_steps(&spec, Dtype::F32, &bytes, rows, cols)).unwrap();
                let actual = spec.quantize_chosen(Dtype::F32, &bytes, rows, cols, &chosen);
                let expected = spec.quantize(Dtype::F32, &bytes, rows, cols);
                let what = format!("{spec:?}, {factor}, {cols} columns on {:?}", gpu.target());
                match (actual, expected) {
                    (Ok((actual, _)), Ok((expected, _))) => {
                        let [actual, expected] =
                            [actual, expected].map(|packed| errors(&spec, &values, &packed));
                        for (actual, expected) in actual.iter().zip(expected) {
                            assert!(
                                *actual <= expected * (1.0 + allowed(&spec)),
                                "{what}: {actual}, twin {expected}"
                            );
                        }
                    }
                    (actual, expected) => assert_eq!(actual.err(), expected.err(), "{what}"),
                }
            }
        }
    }
}

#[test]
fn hqq_in_long_groups_and_other_methods_are_not_for_the_gpu() {
    let spec = Spec { bits: 4, group: None, symmetric: true, method: Method::Hqq };
    assert!(Gpu::chooses(&spec, 1024) && !Gpu::chooses(&spec, 1025));
    let spec = Spec { group: Some(32), ..spec };
    assert!(
        Gpu::chooses(&spec, 1025) && !Gpu::chooses(&Spec { method: Method::MseClip, ..spec }, 1025)
    );
}

/// The error for values without a scale is the twin's.
#[test]
fn hqq_of_what_has_no_scale() {
    let gpu = &devices()[0];
    for (symmetric, value) in
        [(true, 3e6), (false, 3e6), (true, f32::NAN), (false, f32::INFINITY), (true, 3e38)]
    {
        let spec = Spec { bits: 4, group: Some(32), symmetric, method: Method::Hqq };
        let mut values = random(3 * 64, 6);
        values[64 + 40] = value;
        let (bytes, _) = stored(Dtype::F32, &values);
        let chosen = block_on(gpu.choose_steps(&spec, Dtype::F32, &bytes, 3, 64)).unwrap();
        let reason = spec.quantize_chosen(Dtype::F32, &bytes, 3, 64, &chosen).unwrap_err();
        assert_eq!(reason, spec.quantize(Dtype::F32, &bytes, 3, 64).unwrap_err());
        assert!(reason.contains("row 1 of 3"), "{reason}");
    }
}
