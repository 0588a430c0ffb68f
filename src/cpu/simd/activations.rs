//! Activations as int8, laid out for integer dot products.

/// Columns whose products share one pair of scales: those of a group of activations.
pub const GROUP: usize = 32;
/// Steps of a row are padded with zeros to a multiple of this number.
pub const STEP_ALIGN: usize = 16;

/// Scales and sums of the groups of all rows, a row after the other. Rows are padded with zeros to
/// a multiple of [`STEP_ALIGN`].
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// Number for each row, padding included.
    pub stride: usize,
    pub scales: Vec<f32>,
    /// Sums of integers. A zero point of weights multiplies them.
    pub integers: Vec<i32>,
    /// Scales times sums of integers. An offset of weights multiplies them.
    pub sums: Vec<f32>,
}

/// Rows of activations `[rows, cols]` as int8, with a scale for each [`GROUP`] columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Activations {
    pub rows: usize,
    /// Groups of a row.
    pub groups: usize,
    /// Integers of a row, padding included: a multiple of 64.
    pub stride: usize,
    /// `[rows, stride]`
    pub values: Vec<i8>,
    /// One step for each [`GROUP`] columns.
    pub whole: Steps,
    /// One step for each 16 columns, for weights with groups of 16.
    pub halves: Steps,
}

impl Activations {
    /// Room for `rows` rows of `cols` columns, all zero.
    pub fn new(rows: usize, cols: usize) -> Self {
        let groups = cols.div_ceil(GROUP);
        let steps = |count: usize| {
            let stride = count.next_multiple_of(STEP_ALIGN);
            let zeros = vec![0.0; rows * stride];
            Steps { stride, integers: vec![0; rows * stride], scales: zeros.clone(), sums: zeros }
        };
        let stride = (groups * GROUP).next_multiple_of(64);
        Activations {
            rows,
            groups,
            stride,
            values: vec![0; rows * stride],
            whole: steps(groups),
            halves: steps(2 * groups),
        }
    }

    /// The steps of units of 16 or [`GROUP`] columns.
    pub fn steps(&self, unit: usize) -> &Steps {
        if unit == GROUP { &self.whole } else { &self.halves }
    }

    /// The rows of all blocks, which have the same `cols` columns.
    pub fn concat(blocks: &[Activations], cols: usize) -> Self {
        let mut all = Activations::new(0, cols);
        for block in blocks {
            all.rows += block.rows;
            all.values.extend_from_slice(&block.values);
            for (all, of_block) in
                [(&mut all.whole, &block.whole), (&mut all.halves, &block.halves)]
            {
                all.scales.extend_from_slice(&of_block.scales);
                all.integers.extend_from_slice(&of_block.integers);
                all.sums.extend_from_slice(&of_block.sums);
            }
        }
        all
    }

    /// Stores row `row` of activations. In each group scale = max|x| / 127. An integer is
    /// x / scale, rounded to the nearest, half to even.
    #[inline(always)]
    fn store(&mut self, row: usize, x: &[f32]) {
        let values = &mut self.values[row * self.stride..][..self.stride];
        let (whole, halves) = (&mut self.whole, &mut self.halves);
        let (first, first_half) = (row * whole.stride, row * halves.stride);
        let (groups, rest) = x.as_chunks::<GROUP>();
        let mut last = [0.0; GROUP];
        last[..rest.len()].copy_from_slice(rest);
        let groups = groups.iter().chain((!rest.is_empty()).then_some(&last));
        for ((g, x), values) in groups.enumerate().zip(values.as_chunks_mut::<GROUP>().0) {
            let (scale, sums) = quantize_group(x, values);
            whole.scales[first + g] = scale;
            whole.integers[first + g] = sums[0] + sums[1];
            whole.sums[first + g] = scale * (sums[0] + sums[1]) as f32;
            for (half, sum) in sums.into_iter().enumerate() {
                halves.scales[first_half + 2 * g + half] = scale;
                halves.integers[first_half + 2 * g + half] = sum;
                halves.sums[first_half + 2 * g + half] = scale * sum as f32;
            }
        }
    }
}

/// Quantizes `x` `[rows, cols]`.
#[inline(always)]
pub fn quantize(x: &[f32], cols: usize) -> Activations {
    let mut activations = Activations::new(x.len() / cols, cols);
    for (row, x) in x.chunks_exact(cols).enumerate() {
        activations.store(row, x);
    }
    activations
}

/// Scale, and the sums of each half's integers.
#[inline(always)]
fn quantize_group(x: &[f32; GROUP], values: &mut [i8; GROUP]) -> (f32, [i32; 2]) {
    let mut most = [0.0f32; 8];
    for x in x.as_chunks::<8>().0 {
        for (most, x) in most.iter_mut().zip(x) {
            *most = if x.abs() > *most { x.abs() } else { *most };
        }
    }
    let scale = most.into_iter().fold(0.0, f32::max) / 127.0;
    if scale == 0.0 {
        values.fill(0);
        return (0.0, [0; 2]);
    }
    let mut rounded = [0i32; GROUP];
    for (rounded, x) in rounded.iter_mut().zip(x) {
        // A subnormal scale is too coarse to keep |x| / scale at most 127. Adding and subtracting
        // 1.5·2²³ rounds to an integer.
        const ROUND: f32 = 12_582_912.0;
        let quotient = (x / scale).clamp(-127.0, 127.0);
        *rounded = ((quotient + ROUND).to_bits() as i32) - ROUND.to_bits() as i32;
    }
    for (value, rounded) in values.iter_mut().zip(rounded) {
        *value = rounded as i8;
    }
    let sum = |half: usize| rounded[16 * half..][..16].iter().sum();
    (scale, [sum(0), sum(1)])
}
