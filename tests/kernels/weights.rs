//! Random matrices in every number format.

use gemma4_wgpu::{
    cpu::CpuMatrix,
    quant::{self, Dtype, PackFormat, PackedRows},
};
use half::{bf16, f16};

use crate::harness::random;

/// Random weights in a format.
pub fn weights(format: PackFormat, rows: usize, cols: usize, seed: u64) -> CpuMatrix {
    if let PackFormat::Int { bits: 5 | 6, .. } | PackFormat::Iq4 | PackFormat::Q4K = format {
        return stored_weights(format, rows, cols, seed);
    }
    let values = random(rows * cols, seed);
    let (dtype, bytes): (Dtype, Vec<u8>) = match format {
        PackFormat::F16 => {
            (Dtype::F16, values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect())
        }
        PackFormat::BF16 => {
            (Dtype::BF16, values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect())
        }
        _ => (Dtype::F32, bytemuck::cast_slice(&values).to_vec()),
    };
    CpuMatrix::new(quant::pack_rows(dtype, &bytes, rows, cols, format).expect("the format packs"))
}

/// Random integers in a format to which floats cannot be rounded.
fn stored_weights(format: PackFormat, rows: usize, cols: usize, seed: u64) -> CpuMatrix {
    let word = |x: f32| x.to_bits().wrapping_mul(0x9e37_79b9);
    let data =
        random(rows * format.data_words(cols), seed).into_iter().map(|x| word(x) ^ word(x) >> 15);
    let steps = random(2 * rows * format.scale_words(cols), seed + 1);
    let step = |x: f32| f16::from_f32(x / 32.0).to_bits() as u32;
    let scales = steps.as_chunks().0.iter().map(|[low, high]| step(*low) | step(*high) << 16);
    // Only every fourth word of Q4_K's scales consists of f16. They are multiplied by up to 63.
    let scales = scales.enumerate().map(|(at, pair)| match format {
        PackFormat::Q4K if at % 4 > 0 => pair.wrapping_mul(0x9e37_79b9),
        PackFormat::Q4K => step(steps[2 * at] / 63.0) | step(steps[2 * at + 1] / 63.0) << 16,
        _ => pair,
    });
    let scales = scales.collect();
    CpuMatrix::new(PackedRows { format, rows, cols, data: data.collect(), scales })
}
