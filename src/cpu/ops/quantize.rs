/// Number of activations that share a scale.
pub const QUANTIZE_GROUP: usize = 32;

/// Activations as int8 with a scale for every [`QUANTIZE_GROUP`] columns of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedRows {
    pub rows: usize,
    /// Columns before padding.
    pub cols: usize,
    /// Groups of a row: the columns are padded with zeros to whole groups.
    pub groups: usize,
    /// `[rows, groups, 32]`; an activation is about `scale·value`.
    pub values: Vec<i8>,
    /// `[rows, groups]`
    pub scales: Vec<f32>,
    /// Sum of each group's values, `[rows, groups]`. A weight's zero point or offset multiplies it.
    pub sums: Vec<i32>,
}

/// Quantizes `x` `[rows, cols]`. In each group scale = max|x| / 127, and value = x / scale, rounded
/// to the nearest integer, half to even. A group of zeros has scale 0.
pub fn quantize_rows(x: &[f32], cols: usize) -> QuantizedRows {
    let rows = x.len() / cols;
    let groups = cols.div_ceil(QUANTIZE_GROUP);
    let mut quantized = QuantizedRows {
        rows,
        cols,
        groups,
        values: vec![0; rows * groups * QUANTIZE_GROUP],
        scales: Vec::with_capacity(rows * groups),
        sums: Vec::with_capacity(rows * groups),
    };
    let padded = groups * QUANTIZE_GROUP;
    for (x, values) in x.chunks_exact(cols).zip(quantized.values.chunks_exact_mut(padded)) {
        for (x, values) in x.chunks(QUANTIZE_GROUP).zip(values.chunks_exact_mut(QUANTIZE_GROUP)) {
            let scale = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
            if scale > 0.0 {
                for (value, x) in values.iter_mut().zip(x) {
                    // A subnormal scale is too coarse to keep |x| / scale at most 127.
                    *value = (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
                }
            }
            quantized.scales.push(scale);
            quantized.sums.push(values.iter().map(|&value| value as i32).sum());
        }
    }
    quantized
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::ops::testing::random;

    #[test]
    fn values_are_within_half_a_scale() {
        let (rows, cols) = (3, 70);
        let x = random(rows * cols, 1);
        let quantized = quantize_rows(&x, cols);
        assert_eq!((quantized.groups, quantized.values.len()), (3, rows * 96));
        for row in 0..rows {
            for group in 0..3 {
                let (at, start) = (row * 3 + group, group * QUANTIZE_GROUP);
                let x = &x[row * cols + start..row * cols + cols.min(start + QUANTIZE_GROUP)];
                let values = &quantized.values[at * QUANTIZE_GROUP..][..QUANTIZE_GROUP];
                let scale = quantized.scales[at];
                assert_eq!(scale, x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0);
                assert!(values.iter().any(|&value| value.unsigned_abs() == 127));
                for (x, &value) in x.iter().zip(values) {
                    assert!((x - scale * value as f32).abs() <= 0.501 * scale);
                }
                assert!(values[x.len()..].iter().all(|&value| value == 0));
                assert_eq!(
                    quantized.sums[at],
                    values.iter().map(|&value| value as i32).sum::<i32>()
                );
            }
        }
    }

    #[test]
    fn halves_round_to_even_and_zeros_stay_zero() {
        let quantized = quantize_rows(&[127.0, 0.5, 1.5, -2.5, -127.0], 5);
        assert_eq!(quantized.scales, [1.0]);
        assert_eq!(quantized.values[..5], [127, 0, 2, -2, -127]);
        let zeros = quantize_rows(&[0.0; 4], 4);
        assert_eq!((zeros.scales, zeros.values), (vec![0.0], vec![0; 32]));
    }
}
