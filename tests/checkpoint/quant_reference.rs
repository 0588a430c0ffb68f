//! Block decoding, packing and rounding against the Python `gguf` package.
//! fixtures/quant/generate.py wrote its results.

use std::{fs, path::PathBuf};

use gemma4_wgpu::quant::{Dtype, PackFormat, dequantize, native_format, pack_rows};
use half::f16;

const BLOCK_TYPES: [(Dtype, &str); 10] = [
    (Dtype::IQ4_NL, "iq4_nl"),
    (Dtype::Q4_0, "q4_0"),
    (Dtype::Q4_1, "q4_1"),
    (Dtype::Q5_0, "q5_0"),
    (Dtype::Q5_1, "q5_1"),
    (Dtype::Q8_0, "q8_0"),
    (Dtype::Q4_K, "q4_k"),
    // Its scales are rounded to f16.
    (Dtype::Q5_K, "q5_k"),
    (Dtype::Q6_K, "q6_k"),
    (Dtype::IQ4_XS, "iq4_xs"),
];

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/quant").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(name: &str) -> Vec<f32> {
    fixture(name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// One row packed by `pack_rows`, as f32.
fn packed_row(dtype: Dtype, bytes: &[u8], cols: usize, format: PackFormat) -> Vec<f32> {
    let packed = pack_rows(dtype, bytes, 1, cols, format).unwrap();
    let mut row = vec![f32::NAN; cols];
    packed.dequantize_row(0, &mut row);
    row
}

#[test]
fn decodes_every_block_type_bit_for_bit() {
    for (dtype, name) in BLOCK_TYPES {
        let expected = floats(&format!("{name}.f32"));
        let values = dequantize(dtype, &fixture(&format!("{name}.blocks"))).unwrap();
        assert!(expected.len() >= 3 * dtype.block_len(), "{name}: fixture too short");
        assert_eq!(bits(&values), bits(&expected), "{name}");
    }
}

#[test]
fn packs_blocks_whose_scales_are_kept_without_change() {
    for (dtype, name) in &BLOCK_TYPES[..7] {
        let expected = floats(&format!("{name}.f32"));
        let row = packed_row(
            *dtype,
            &fixture(&format!("{name}.blocks")),
            expected.len(),
            native_format(*dtype),
        );
        assert_eq!(bits(&row), bits(&expected), "{name}");
    }
}

#[test]
fn packs_other_blocks_up_to_the_rounding_of_scales() {
    for (dtype, name) in &BLOCK_TYPES[7..] {
        let expected = floats(&format!("{name}.f32"));
        let format = native_format(*dtype);
        let group = format.group().expect("blocks pack as integers");
        let row = packed_row(*dtype, &fixture(&format!("{name}.blocks")), expected.len(), format);
        let mut rounded = 0;
        for (row, expected) in row.chunks(group).zip(expected.chunks(group)) {
            // |scale·q| and |offset| are at most range + |extreme| of the group.
            // Each has a relative error of 2^-11.
            let min = expected.iter().fold(f32::INFINITY, |min, &x| min.min(x));
            let max = expected.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
            let bound = (2.0 * (max - min) + max.abs().max(min.abs())) / 1024.0;
            for (value, expected) in row.iter().zip(expected) {
                assert!((value - expected).abs() <= bound, "{name}: {value} for {expected}");
                rounded += usize::from(value != expected);
            }
        }
        assert!(rounded > 0, "{name}: the fixture's scales all fit f16, which tests nothing");
    }
}

fn mean_square(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>() / a.len() as f64
}

#[test]
fn rounds_floats_at_least_as_well_as_ggml() {
    let weights = floats("normal.f32");
    let cases =
        [(Dtype::Q4_0, "normal.q4_0"), (Dtype::Q4_1, "normal.q4_1"), (Dtype::Q8_0, "normal.q8_0")];
    for (dtype, name) in cases {
        let format = native_format(dtype);
        let ours = packed_row(Dtype::F32, &fixture("normal.f32"), weights.len(), format);
        let theirs = dequantize(dtype, &fixture(name)).unwrap();
        let (ours, theirs) = (mean_square(&ours, &weights), mean_square(&theirs, &weights));
        assert!(
            ours <= theirs && ours > 0.5 * theirs,
            "{format}: mean square error {ours:e}, ggml's {theirs:e}"
        );
    }
}

#[test]
fn chooses_ggmls_scales() {
    for (dtype, name) in [(Dtype::Q4_0, "normal.q4_0"), (Dtype::Q8_0, "normal.q8_0")] {
        let (source, blocks) = (fixture("normal.f32"), fixture(name));
        let packed =
            pack_rows(Dtype::F32, &source, 1, source.len() / 4, native_format(dtype)).unwrap();
        let ours: Vec<u16> =
            packed.scales.iter().flat_map(|&word| [word as u16, (word >> 16) as u16]).collect();
        let block_scales = blocks
            .chunks(dtype.block_bytes())
            .map(|block| u16::from_le_bytes([block[0], block[1]]));
        assert_eq!(ours, block_scales.collect::<Vec<_>>(), "{name}");
    }
}

/// A block of `dtype` with `d` (and `dmin`) at their places and 0xff elsewhere.
fn block_with_scale(dtype: Dtype, d: f16) -> Vec<u8> {
    let mut block = vec![0xff; dtype.block_bytes()];
    let at = if dtype == Dtype::Q6_K { 208 } else { 0 };
    block[at..at + 2].copy_from_slice(&d.to_le_bytes());
    if matches!(dtype, Dtype::Q4_1 | Dtype::Q5_1 | Dtype::Q4_K | Dtype::Q5_K) {
        block[2..4].copy_from_slice(&f16::ONE.to_le_bytes());
    }
    block
}

#[test]
fn refuses_scales_that_are_not_finite() {
    for (dtype, name) in BLOCK_TYPES {
        for (scale, shown) in [(f16::NAN, "NaN"), (f16::INFINITY, "inf")] {
            let mut bytes = block_with_scale(dtype, f16::ONE);
            bytes.extend(block_with_scale(dtype, scale));
            let cols = 2 * dtype.block_len();
            let reason = pack_rows(dtype, &bytes, 1, cols, native_format(dtype)).unwrap_err();
            let place = format!("row 0 of 1, columns from {}: the scale is ", dtype.block_len());
            assert!(reason.starts_with(&place) && reason.contains(shown), "{name}: {reason}");
            let reason = dequantize(dtype, &bytes).unwrap_err();
            assert!(
                reason.starts_with(&format!("value {} is ", dtype.block_len())),
                "{name}: {reason}"
            );
        }
    }
}

#[test]
fn refuses_products_beyond_f16() {
    for dtype in [Dtype::Q4_K, Dtype::Q5_K] {
        let reason =
            pack_rows(dtype, &block_with_scale(dtype, f16::MAX), 1, 256, native_format(dtype))
                .unwrap_err();
        assert!(
            reason.contains("the scale") && reason.contains("beyond f16's largest value, 65504"),
            "{reason}"
        );
    }
    let mut block = block_with_scale(Dtype::Q6_K, f16::MAX);
    block[192] = 64;
    let reason = pack_rows(Dtype::Q6_K, &block, 1, 256, native_format(Dtype::Q6_K)).unwrap_err();
    assert!(reason.contains("columns from 0: the scale 4.192256e6 is beyond"), "{reason}");
}
