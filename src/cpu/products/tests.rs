//! Products with every set of instructions against their twins.

use half::f16;

use super::*;
use crate::cpu::CpuMatrix;
use crate::cpu::arena::Arena;
use crate::cpu::instructions::Instructions;
use crate::cpu::ops::{self, testing::random};
use crate::cpu::tiles::TiledMatrix;
use crate::quant::{PackFormat, PackedRows};

/// Shapes `[features, columns]` around the sizes of tiles, groups and vectors.
const SHAPES: [(usize, usize); 7] =
    [(1, 1), (3, 31), (16, 32), (17, 70), (40, 256), (33, 300), (16, 672)];
/// Rows of activations around the blocks of tiles.
const ROWS: [usize; 7] = [1, 2, 5, 6, 8, 13, 32];

/// Scales and offsets of random matrices are below this.
const MOST_STEP: f32 = 1.0 / 32.0;

/// A random matrix in a format.
fn matrix(format: PackFormat, (features, cols): (usize, usize), seed: u64) -> CpuMatrix {
    let words = features * format.data_words(cols);
    let data: Vec<u32> = match format {
        PackFormat::F32 => random(words, seed).into_iter().map(f32::to_bits).collect(),
        PackFormat::F16 => random(2 * words, seed).as_chunks().0.iter().map(halves).collect(),
        PackFormat::BF16 => {
            let truncated = |pair: &[f32; 2]| pair[0].to_bits() >> 16 | pair[1].to_bits() & !0xffff;
            random(2 * words, seed).as_chunks().0.iter().map(truncated).collect()
        }
        _ => random(words, seed).into_iter().map(scrambled).collect(),
    };
    with_data(format, features, cols, data)
}

fn halves(pair: &[f32; 2]) -> u32 {
    let [low, high] = pair.map(|x| f16::from_f32(x).to_bits() as u32);
    low | high << 16
}

fn scrambled(x: f32) -> u32 {
    let word = x.to_bits().wrapping_mul(0x9e37_79b9);
    word ^ word >> 15
}

/// A matrix of these words with random scales.
fn with_data(format: PackFormat, features: usize, cols: usize, data: Vec<u32>) -> CpuMatrix {
    let steps = random(2 * features * format.scale_words(cols), 5);
    let words = steps.as_chunks().0.iter().enumerate();
    let scales = words.map(|(at, steps)| match format {
        // Only every fourth word consists of f16. Integers up to 63 multiply them.
        PackFormat::Q4K if at % 4 > 0 => scrambled(steps[0]),
        PackFormat::Q4K => halves(&steps.map(|step| step * MOST_STEP / 63.0)),
        _ => halves(&steps.map(|step| step * MOST_STEP)),
    });
    CpuMatrix::new(PackedRows { format, rows: features, cols, data, scales: scales.collect() })
}

/// The matrix as the fast path stores it.
fn stored(weights: &CpuMatrix) -> StoredMatrix {
    let packed = weights.packed();
    if packed.format.group().is_none() {
        return StoredMatrix::Rows(weights.clone());
    }
    let (rows, cols) = (packed.rows, packed.cols);
    let tiles = TiledMatrix::new(&mut Arena::default(), "m", packed.format, rows, cols);
    let mut tiles = tiles.unwrap();
    tiles.store(0, packed);
    StoredMatrix::Tiles(tiles)
}

/// The twin's product, and a bound of what rounding changes. Zero points add products that cancel,
/// with up to 128 steps of a weight.
fn twin(weights: &CpuMatrix, x: &[f32]) -> (Vec<f32>, f32) {
    let cols = weights.in_features();
    let mut out = vec![0.0; x.len() / cols * weights.out_features()];
    match weights.packed().format.group() {
        Some(_) => ops::matmul_q8(weights, &ops::quantize_rows(x, cols), &mut out),
        None => ops::matmul(weights, x, &mut out),
    }
    let mut row = vec![0.0; cols];
    let mut bound = 0.0f32;
    for feature in 0..weights.out_features() {
        weights.dequantize_row(feature, &mut row);
        for x in x.chunks_exact(cols) {
            let terms = row.iter().zip(x).map(|(w, x)| (w.abs() + 128.0 * MOST_STEP) * x.abs());
            bound = bound.max(1e-6 * terms.sum::<f32>());
        }
    }
    (out, bound)
}

#[track_caller]
fn assert_agrees(instructions: Instructions, weights: &CpuMatrix, x: &[f32]) {
    let set = instructions.set().unwrap();
    let (expected, bound) = twin(weights, x);
    let found = multiply(&*set, &[&stored(weights)], x).remove(0);
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (found - expected).abs() <= bound,
            "{}, {}, {} columns, {} numbers, {i}: {found}, not {expected}",
            instructions.name(),
            weights.packed().format,
            weights.in_features(),
            x.len()
        );
    }
}

#[test]
fn products_agree_with_their_twins() {
    for instructions in Instructions::available() {
        for format in PackFormat::ALL {
            for (seed, shape) in (1..).zip(SHAPES) {
                let weights = matrix(format, shape, seed);
                for rows in ROWS {
                    assert_agrees(instructions, &weights, &random(rows * shape.1, rows as u64));
                }
            }
        }
    }
}

/// All integers are the least or the greatest ones, or 0.
#[test]
fn extreme_integers_do_not_overflow() {
    let (features, cols) = (16, 64);
    for instructions in Instructions::available() {
        for format in PackFormat::ALL.into_iter().filter(|format| format.group().is_some()) {
            for word in [0, 0x8080_8080, 0x7f7f_7f7f, u32::MAX] {
                let data = vec![word; features * format.data_words(cols)];
                let weights = with_data(format, features, cols, data);
                for (rows, value) in [(1, 1.0), (8, -1.0)] {
                    assert_agrees(instructions, &weights, &vec![value; rows * cols]);
                }
            }
        }
    }
}

#[test]
fn one_call_computes_several_matrices() {
    for instructions in Instructions::available() {
        let set = instructions.set().unwrap();
        let weights = [PackFormat::INT4, PackFormat::F16, PackFormat::Q4K]
            .map(|format| stored(&matrix(format, (20, 64), 1)));
        let x = random(3 * 64, 2);
        let together = multiply(&*set, &weights.each_ref(), &x);
        let alone = weights.each_ref().map(|weights| multiply(&*set, &[weights], &x).remove(0));
        assert_eq!(together, alone);
    }
}

#[test]
fn activations_are_those_of_the_twin() {
    for instructions in Instructions::available() {
        let set = instructions.set().unwrap();
        for cols in [1, 32, 70, 640] {
            let mut x = random(3 * cols, cols as u64);
            // A group of zeros, and one of halves.
            x[..cols.min(32)].fill(0.0);
            if cols == 640 {
                for (i, x) in x[64..96].iter_mut().enumerate() {
                    *x = if i == 0 { 127.0 } else { i as f32 - 15.5 };
                }
            }
            let twin = ops::quantize_rows(&x, cols);
            let found = set.quantize(&x, cols);
            assert_eq!((found.rows, found.groups), (twin.rows, twin.groups));
            for row in 0..3 {
                for group in 0..twin.groups {
                    let at = row * twin.groups + group;
                    let values = &found.values[row * found.stride + 32 * group..][..32];
                    assert_eq!(values, &twin.values[32 * at..][..32]);
                    let (whole, halves) = (&found.whole, &found.halves);
                    let step = row * whole.stride + group;
                    assert_eq!(whole.scales[step], twin.scales[at]);
                    assert_eq!(whole.integers[step], twin.sums[at]);
                    assert_eq!(whole.sums[step], twin.scales[at] * twin.sums[at] as f32);
                    for half in 0..2 {
                        let step = row * halves.stride + 2 * group + half;
                        let sum: i32 = values[16 * half..][..16].iter().map(|&x| x as i32).sum();
                        assert_eq!(halves.scales[step], twin.scales[at]);
                        assert_eq!(halves.integers[step], sum);
                        assert_eq!(halves.sums[step], twin.scales[at] * sum as f32);
                    }
                }
            }
        }
    }
}
