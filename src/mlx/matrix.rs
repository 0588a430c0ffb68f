//! Weight matrices in MLX's form for matrix products.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::error::Result;
use crate::mlx::ops::{Array, Dtype, Quantized};
use crate::mlx::worker;
use crate::model::{matrix_reader::MatrixReader, weights::WeightStore};
use crate::quant::{PackFormat, PackedRows};

/// Groups that MLX has kernels for.
const GROUPS: [u32; 3] = [32, 64, 128];

enum Weights {
    Quantized(Quantized),
    /// `[rows, cols]` in the type of activations.
    Dense(Array),
}

/// A weight matrix `[rows, cols]`.
pub struct MlxMatrix {
    weights: Weights,
    cols: usize,
    /// Columns of the words, in whole groups.
    padded: usize,
}

impl MlxMatrix {
    /// Memory for a matrix. Integers stay the same, in [`PackFormat::widened`], where MLX supports
    /// their groups. All other matrices are stored as `compute`.
    pub fn zeros(
        format: PackFormat,
        rows: usize,
        cols: usize,
        compute: Dtype,
    ) -> Result<MlxMatrix> {
        let PackFormat::Int { bits, group, .. } = format.widened() else {
            return MlxMatrix::dense(rows, cols, compute);
        };
        let (words, bits) = (format.widened().data_words(cols), bits as usize);
        let padded = words * 32 / bits;
        if !GROUPS.contains(&group) || !padded.is_multiple_of(group as usize) {
            return MlxMatrix::dense(rows, cols, compute);
        }
        let group = group as usize;
        let factors = || Array::zeros(&[rows, padded / group], compute);
        let words = Array::zeros(&[rows, words], Dtype::U32)?;
        let weights = Quantized { words, scales: factors()?, biases: factors()?, group, bits };
        Ok(MlxMatrix { weights: Weights::Quantized(weights), cols, padded })
    }

    fn dense(rows: usize, cols: usize, compute: Dtype) -> Result<MlxMatrix> {
        Ok(MlxMatrix {
            weights: Weights::Dense(Array::zeros(&[rows, cols], compute)?),
            cols,
            padded: cols,
        })
    }

    /// Copies rows into a matrix of zeros, from `first_row` on.
    pub fn write(&mut self, first_row: usize, packed: &PackedRows, compute: Dtype) -> Result<()> {
        match &mut self.weights {
            Weights::Dense(array) => {
                array.write(first_row * self.cols * compute.bytes(), &dense_rows(packed, compute))
            }
            Weights::Quantized(quantized) => {
                let packed = packed.widened();
                let rows = AffineRows::new(&packed, compute);
                let groups = self.padded / quantized.group;
                quantized.words.write(
                    first_row * packed.format.data_words(packed.cols) * 4,
                    bytemuck::cast_slice(&rows.words),
                )?;
                quantized.scales.write(
                    first_row * groups * compute.bytes(),
                    &bytes_of(&rows.scales, compute),
                )?;
                quantized
                    .biases
                    .write(first_row * groups * compute.bytes(), &bytes_of(&rows.biases, compute))
            }
        }
    }

    /// Random words for the weights, with scales that preserve the magnitude of activations.
    pub fn randomize(&mut self, seed: u64, compute: Dtype) -> Result<()> {
        let Weights::Quantized(quantized) = &mut self.weights else { return Ok(()) };
        let (words, groups) = (quantized.words.shape(), quantized.scales.shape());
        // The standard deviation of uniform integers of this width.
        let (deviation, zero) = if quantized.bits == 4 { (4.6, 7.5) } else { (73.9, 127.5) };
        let scale = round(1.0 / (deviation * (self.cols as f32).sqrt()), compute);
        let count = groups.iter().product();
        let constant =
            |value| Array::new(&bytes_of(&vec![value; count], compute), &groups, compute);
        (quantized.scales, quantized.biases) = (constant(scale)?, constant(-zero * scale)?);
        quantized.words = worker::call(move || {
            let random = Array::random_words(&words, seed)?;
            random.wait()?;
            Ok(random)
        })?;
        Ok(())
    }

    /// Bytes of weights and scales.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Dense(array) => array.bytes(),
            Weights::Quantized(weights) => {
                weights.words.bytes() + weights.scales.bytes() + weights.biases.bytes()
            }
        }
    }

    /// `x` `[n, cols]` times the transpose: `[n, rows]`.
    pub fn linear(&self, x: &Array) -> Result<Array> {
        match &self.weights {
            Weights::Dense(array) => x.matmul(array),
            Weights::Quantized(weights) if self.padded > self.cols => {
                x.pad_columns(self.padded - self.cols)?.quantized_matmul(weights)
            }
            Weights::Quantized(weights) => x.quantized_matmul(weights),
        }
    }

    /// The products of `x` `[rows, share, cols]` with the matrices of the experts that `chosen`
    /// `[rows, top_k]` selects, of `experts` in all: `[rows, top_k, features]`.
    pub fn gather_linear(&self, x: &Array, chosen: &Array, experts: usize) -> Result<Array> {
        let (shape, top_k) = (x.shape(), chosen.shape()[1]);
        let by_row = x.reshape(&[shape[0] * shape[1], self.cols])?;
        let by_row = match self.padded > self.cols {
            true => by_row.pad_columns(self.padded - self.cols)?,
            false => by_row,
        };
        let x = by_row.reshape(&[shape[0], shape[1], 1, self.padded])?;
        let results = match &self.weights {
            Weights::Dense(array) => x.gather_matmul(array, chosen, experts)?,
            Weights::Quantized(weights) => x.gather_quantized_matmul(weights, chosen, experts)?,
        };
        let features = results.shape()[3];
        results.reshape(&[shape[0], top_k, features])
    }

    /// The rows that `ids` (u32, `[n]`) select, times `scale`: `[n, cols]`.
    pub fn embed(&self, ids: &Array, scale: f32) -> Result<Array> {
        let rows = match &self.weights {
            Weights::Dense(array) => array.take(ids)?,
            Weights::Quantized(weights) => weights.take(ids)?,
        };
        let rows = match self.padded > self.cols {
            true => rows.slice(&[0, 0], &[rows.shape()[0], self.cols])?,
            false => rows,
        };
        rows.scale(scale)
    }
}

/// Packed rows in MLX's affine form, where q is unsigned and `w = scale·q + bias`.
struct AffineRows {
    words: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl AffineRows {
    /// Converts `packed` integers of 4 or 8 bits. Scales and biases are values of `compute`.
    fn new(packed: &PackedRows, compute: Dtype) -> AffineRows {
        let PackFormat::Int { bits, group, offset } = packed.format else {
            return AffineRows { words: Vec::new(), scales: Vec::new(), biases: Vec::new() };
        };
        let (data_words, scale_words) =
            (packed.format.data_words(packed.cols), packed.format.scale_words(packed.cols));
        let words_per_group = (group as usize * bits as usize / 32).max(1);
        let groups = data_words / words_per_group;
        let mut rows = AffineRows {
            words: packed.data.clone(),
            scales: vec![0.0; packed.rows * groups],
            biases: vec![0.0; packed.rows * groups],
        };
        let factors = rows
            .scales
            .par_chunks_mut(groups.max(1))
            .zip(rows.biases.par_chunks_mut(groups.max(1)));
        let words = rows.words.par_chunks_mut(data_words.max(1));
        words.zip(factors).zip(packed.scales.par_chunks(scale_words.max(1))).for_each(
            |((words, (scales, biases)), stored)| {
                for (g, words) in words.chunks_mut(words_per_group).enumerate() {
                    let (scale, bias) = match offset {
                        true => (stored[g], f16::from_bits((stored[g] >> 16) as u16).to_f32()),
                        false => (stored[g / 2] >> (16 * (g % 2)), 0.0),
                    };
                    let scale = round(f16::from_bits(scale as u16).to_f32(), compute);
                    let zero_point = unsign(bits, offset, words);
                    (scales[g], biases[g]) = (scale, round(bias - zero_point * scale, compute));
                }
            },
        );
        rows
    }
}

/// Rewrites a group's words with unsigned q in MLX's order. Returns the q that stands for the
/// former 0.
///
/// Bytes get 128 added only where one is negative. Otherwise an offset stays exact.
fn unsign(bits: u8, offset: bool, words: &mut [u32]) -> f32 {
    if bits == 4 {
        words.iter_mut().for_each(|word| *word = nibbles_in_order(*word));
        return if offset { 0.0 } else { 8.0 };
    }
    const SIGNS: u32 = 0x8080_8080;
    if words.iter().all(|word| word & SIGNS == 0) {
        return 0.0;
    }
    words.iter_mut().for_each(|word| *word ^= SIGNS);
    128.0
}

/// Byte b holds weights b (low) and 4 + b (high). MLX expects weight i in nibble i.
fn nibbles_in_order(word: u32) -> u32 {
    let gather = |bytes: u32| {
        let pairs = (bytes | bytes >> 4) & 0x00ff_00ff;
        (pairs | pairs >> 8) & 0xffff
    };
    gather(word & 0x0f0f_0f0f) | gather(word >> 4 & 0x0f0f_0f0f) << 16
}

/// Rows as values of `compute`, without padding.
fn dense_rows(packed: &PackedRows, compute: Dtype) -> Vec<u8> {
    let mut values = vec![0.0; packed.rows * packed.cols];
    let rows = values.par_chunks_mut(packed.cols.max(1)).enumerate();
    rows.for_each(|(row, values)| packed.dequantize_row(row, values));
    bytes_of(&values, compute)
}

/// The nearest value of a float type.
fn round(value: f32, to: Dtype) -> f32 {
    match to {
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        Dtype::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Values as elements of a float type.
pub(super) fn bytes_of(values: &[f32], as_type: Dtype) -> Vec<u8> {
    match as_type {
        Dtype::Bf16 => {
            values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
        }
        Dtype::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        _ => bytemuck::cast_slice(values).to_vec(),
    }
}

/// Passes weights to MLX as they are read.
pub(super) struct MlxStore {
    pub compute: Dtype,
    pub bytes: u64,
    /// Random matrices from this seed on, instead of those of the checkpoint.
    pub seed: Option<u64>,
}

impl WeightStore for MlxStore {
    type Matrix = MlxMatrix;
    /// `[len]`
    type Vector = Array;

    async fn matrix(&mut self, mut reader: MatrixReader<'_>) -> Result<MlxMatrix> {
        let mut matrix = MlxMatrix::zeros(reader.format, reader.rows, reader.cols, self.compute)?;
        match &mut self.seed {
            Some(seed) => {
                *seed = seed.wrapping_add(1);
                matrix.randomize(*seed, self.compute)?;
            }
            None => {
                while let Some((first_row, packed)) = reader.next(usize::MAX).await? {
                    matrix.write(first_row, &packed, self.compute)?;
                }
            }
        }
        self.bytes += matrix.bytes() as u64;
        Ok(matrix)
    }

    fn vector(&mut self, _name: &str, values: Vec<f32>) -> Result<Array> {
        self.bytes += (self.compute.bytes() * values.len()) as u64;
        Array::new(&bytes_of(&values, self.compute), &[values.len()], self.compute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Dtype as Stored, pack_rows};

    /// The values of an affine matrix, by our own reading of MLX's layout.
    fn values(
        rows: &AffineRows,
        bits: usize,
        group: usize,
        cols: usize,
        row_words: usize,
    ) -> Vec<f32> {
        let (per_word, padded) = (32 / bits, row_words * 32 / bits);
        let value = |row: usize, col: usize| {
            let word = rows.words[row * row_words + col / per_word];
            let q = word >> (col % per_word * bits) & ((1 << bits) - 1);
            let g = (row * padded + col) / group;
            rows.scales[g] * q as f32 + rows.biases[g]
        };
        (0..rows.words.len() / row_words)
            .flat_map(|row| (0..cols).map(move |col| (row, col)))
            .map(|(row, col)| value(row, col))
            .collect()
    }

    #[test]
    fn affine_rows_hold_the_same_weights() {
        let (rows, cols) = (3, 70);
        let source: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin() + 0.2).collect();
        for (bits, offset) in [(4, false), (4, true), (8, false), (8, true)] {
            let format = PackFormat::Int { bits, group: 32, offset };
            let packed =
                pack_rows(Stored::F32, bytemuck::cast_slice(&source), rows, cols, format).unwrap();
            let affine = AffineRows::new(&packed, Dtype::F32);
            let found = values(&affine, bits as usize, 32, cols, format.data_words(cols));
            let mut expected = vec![0.0; rows * cols];
            expected
                .chunks_mut(cols)
                .enumerate()
                .for_each(|(row, out)| packed.dequantize_row(row, out));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 2e-6, "{format}: {found}, expected {expected}");
            }
        }
    }

    /// Widths and groups of other programs' checkpoints, up to the largest groups of MLX's kernels.
    #[test]
    fn larger_groups() {
        for group in [64, 128] {
            let format = PackFormat::Int { bits: 4, group, offset: false };
            let (cols, groups) = (256, 256 / group);
            // Weight i of a word is i, and group g's scale is g + 1.
            let scale = |g: u32| f16::from_f32(g as f32 + 1.0).to_bits() as u32;
            let packed = PackedRows {
                format,
                rows: 1,
                cols,
                data: vec![0x7362_5140; cols / 8],
                scales: (0..groups / 2)
                    .map(|pair| scale(2 * pair) | scale(2 * pair + 1) << 16)
                    .collect(),
            };
            let affine = AffineRows::new(&packed, Dtype::F32);
            let expected: Vec<f32> = (0..cols)
                .map(|i| ((i / group as usize) as f32 + 1.0) * ((i % 8) as f32 - 8.0))
                .collect();
            assert_eq!(values(&affine, 4, group as usize, cols, cols / 8), expected);
        }
    }

    #[test]
    fn bf16_keeps_the_zero_of_symmetric_weights() {
        let source = [0.3f32, 0.0, -0.7, 0.1].repeat(8);
        let packed =
            pack_rows(Stored::F32, bytemuck::cast_slice(&source), 1, 32, PackFormat::INT4).unwrap();
        let affine = AffineRows::new(&packed, Dtype::Bf16);
        assert_eq!(values(&affine, 4, 32, 32, 4)[1], 0.0);
    }
}
