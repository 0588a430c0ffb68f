//! Products and embeddings of every weight format.

use gemma4_wgpu::{
    cpu::{CpuMatrix, ops},
    mlx::{MlxMatrix, ops::Dtype},
    quant::{Dtype as Stored, PackFormat, PackedRows, pack_rows},
};
use half::{bf16, f16};

use super::tensors::{array, ids, random, values};
use crate::common::assert_close;

fn packed(format: PackFormat, rows: usize, cols: usize) -> PackedRows {
    let source = random(rows * cols, 1);
    if let PackFormat::Int { bits: 5 | 6, .. } | PackFormat::Iq4 | PackFormat::Q4K = format {
        // There is no rounding from floats to these formats.
        let word = |x: &f32| x.to_bits().wrapping_mul(0x9e37_79b9).reverse_bits();
        let step = |x: &f32| 0x0001_0001 * f16::from_f32(x / 64.0).to_bits() as u32;
        let data = source.iter().cycle().map(word).take(rows * format.data_words(cols)).collect();
        // MLX stores Q4_K's scales and offsets as f16.
        // A power of two times a small integer needs no rounding.
        let factors = 0x0001_0001 * f16::from_f32(1.0 / 512.0).to_bits() as u32;
        let scales = source.iter().cycle().enumerate().map(|(at, x)| match format {
            PackFormat::Q4K if at % 4 == 0 => factors,
            PackFormat::Q4K => word(x),
            _ => step(x),
        });
        let scales = scales.take(rows * format.scale_words(cols)).collect();
        return PackedRows { format, rows, cols, data, scales };
    }
    let (stored, bytes): (Stored, Vec<u8>) = match format {
        PackFormat::F16 => {
            (Stored::F16, source.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect())
        }
        PackFormat::BF16 => {
            (Stored::BF16, source.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect())
        }
        _ => (Stored::F32, bytemuck::cast_slice(&source).to_vec()),
    };
    pack_rows(stored, &bytes, rows, cols, format).unwrap()
}

/// The matrix in MLX, written in two slices.
fn matrix(packed: &PackedRows, compute: Dtype) -> MlxMatrix {
    let PackedRows { format, rows, cols, ref data, ref scales } = *packed;
    let mut matrix = MlxMatrix::zeros(format, rows, cols, compute).unwrap();
    let (words, scale_words) = (format.data_words(cols), format.scale_words(cols));
    for (first, end) in [(0, rows / 3), (rows / 3, rows)] {
        let part = PackedRows {
            format,
            rows: end - first,
            cols,
            data: data[first * words..end * words].to_vec(),
            scales: scales[first * scale_words..end * scale_words].to_vec(),
        };
        matrix.write(first, &part, compute).unwrap();
    }
    matrix
}

#[test]
fn products() {
    for format in PackFormat::ALL {
        for (out, cols, rows) in [(33, 64, 1), (8, 70, 5), (64, 512, 2)] {
            let (packed, x) = (packed(format, out, cols), random(rows * cols, 2));
            let mut expected = vec![0.0; rows * out];
            ops::matmul(&CpuMatrix::new(packed.clone()), &x, &mut expected);
            let found = matrix(&packed, Dtype::F32).linear(&array(&x, &[rows, cols])).unwrap();
            assert_eq!(found.shape(), [rows, out]);
            assert_close(&values(&found), &expected, 1e-4, &format!("{format}, {out}x{cols}"));
        }
    }
}

#[test]
fn embeddings() {
    for format in PackFormat::ALL {
        for cols in [64, 70] {
            let (packed, tokens) = (packed(format, 9, cols), [8, 0, 8, 3]);
            let mut expected = vec![0.0; tokens.len() * cols];
            ops::embed(&CpuMatrix::new(packed.clone()), &tokens, 2.5, &mut expected);
            let found = matrix(&packed, Dtype::F32).embed(&ids(&tokens), 2.5).unwrap();
            assert_eq!(found.shape(), [tokens.len(), cols]);
            assert_close(&values(&found), &expected, 1e-5, &format!("{format}, {cols}"));
        }
    }
}

/// Products are near the exact ones, and their results are bf16.
/// Scales and activations are rounded to bf16, and on a CPU MLX rounds its sums too.
#[test]
fn bf16_products_are_near() {
    for format in PackFormat::ALL {
        let (packed, x) = (packed(format, 16, 64), random(3 * 64, 2));
        let mut expected = vec![0.0; 3 * 16];
        ops::matmul(&CpuMatrix::new(packed.clone()), &x, &mut expected);
        let x = array(&x, &[3, 64]).astype(Dtype::Bf16).unwrap();
        let found = matrix(&packed, Dtype::Bf16).linear(&x).unwrap();
        assert_eq!(found.dtype(), Some(Dtype::Bf16), "{format}");
        assert_close(
            &values(&found.astype(Dtype::F32).unwrap()),
            &expected,
            0.3,
            &format.to_string(),
        );
    }
}

/// Quantized weights stay quantized.
/// Their size is their bits, and for each group 16 or 32 bits each for scale and bias.
#[test]
fn bytes() {
    let bytes = |format, compute| matrix(&packed(format, 6, 64), compute).bytes();
    assert_eq!(bytes(PackFormat::INT4, Dtype::Bf16), 6 * (32 + 2 * 4));
    assert_eq!(bytes(PackFormat::INT8, Dtype::F32), 6 * (64 + 2 * 8));
    assert_eq!(bytes(PackFormat::BF16, Dtype::Bf16), 6 * 128);
}
