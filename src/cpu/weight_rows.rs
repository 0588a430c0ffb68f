//! What operations read of a matrix.

/// A weight matrix `[out_features, in_features]` of which rows can be read.
pub trait WeightRows: Sync {
    fn out_features(&self) -> usize;

    fn in_features(&self) -> usize;

    /// Row `row` as f32 into `out`, shape `[in_features]`.
    fn dequantize_row(&self, row: usize, out: &mut [f32]);
}
