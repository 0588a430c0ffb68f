//! Searches for better scales and offsets than loading has time for. A search tries several values
//! for each group.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::quant::pack::{RowWriter, pack_rows};
use crate::quant::round::{self, MAX_GROUP};
use crate::quant::steps::{Levels, Steps, range};
use crate::quant::unpack::load_floats;
use crate::quant::{COLUMN_ALIGN, Dtype, PackFormat, PackedRows, group_for};

/// How the scale and offset of a group are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The steps cover the range of all values, as in loading.
    MinMax,
    /// The range with the least squared error, weighted by magnitude. Values may be clipped.
    MseClip,
    /// Half-quadratic quantization (Badri and Shaji, 2023). Symmetric scales come from alternating
    /// least squares, and offsets from shrinking outliers.
    Hqq,
}

/// The target of a matrix: method, width and group size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// 4 or 8.
    pub bits: u8,
    /// Columns that share a scale: 16, or a multiple of 32. `None` for a row.
    pub group: Option<usize>,
    pub symmetric: bool,
    pub method: Method,
}

/// Sums of squares over a matrix: of the rounding errors, and of the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Squares {
    pub error: f64,
    pub weight: f64,
}

impl Squares {
    fn add(self, other: Squares) -> Squares {
        Squares { error: self.error + other.error, weight: self.weight + other.weight }
    }
}

impl std::ops::AddAssign for Squares {
    fn add_assign(&mut self, other: Squares) {
        *self = self.add(other);
    }
}

impl Spec {
    /// What loading makes of a full-precision matrix for this format.
    pub fn min_max(bits: u8) -> Spec {
        Spec { bits, group: Some(32), symmetric: true, method: Method::MinMax }
    }

    /// The format of the result. A group size without a format repeats its scales in smaller
    /// groups, and a whole row in groups of 32.
    pub fn format(&self) -> PackFormat {
        PackFormat::Int { bits: self.bits, group: self.width() as u32, offset: !self.symmetric }
    }

    /// Columns that share a scale in the format.
    fn width(&self) -> usize {
        self.group.map_or(32, |group| group_for(group) as usize)
    }

    /// Columns that share a scale in rows of `cols`. A row's last group may be shorter.
    pub fn group_columns(&self, cols: usize) -> usize {
        self.group.unwrap_or(cols).max(self.width())
    }

    /// Groups of a row of `cols` columns.
    pub fn groups(&self, cols: usize) -> usize {
        cols.div_ceil(self.group_columns(cols))
    }

    /// The lowest and the highest level.
    pub fn levels(&self) -> (i32, i32) {
        let Levels { lowest, highest, .. } = Levels::of(self.bits, self.symmetric);
        (lowest, highest)
    }

    /// Quantizes rows of floats, and measures the error. [`Method::MinMax`] in the formats' groups
    /// gives exactly what [`pack_rows`] does.
    ///
    /// Errors: as [`pack_rows`].
    pub fn quantize(
        &self,
        dtype: Dtype,
        bytes: &[u8],
        rows: usize,
        cols: usize,
    ) -> Result<(PackedRows, Squares), String> {
        let packed = match (self.method, self.group) {
            (Method::MinMax, Some(16 | 32 | 64 | 128)) => {
                pack_rows(dtype, bytes, rows, cols, self.format())?
            }
            _ => self.search(dtype, bytes, rows, cols, None)?,
        };
        measure(dtype, bytes, packed)
    }

    /// [`Spec::quantize`] with scales and offsets that a device chose, `[rows, groups]`. Each word
    /// has the bits of a group's f16 scale and, in the high half, of its offset. A scale that is
    /// not finite is chosen here instead.
    ///
    /// Errors: as [`pack_rows`]; another number of groups.
    pub fn quantize_chosen(
        &self,
        dtype: Dtype,
        bytes: &[u8],
        rows: usize,
        cols: usize,
        chosen: &[u32],
    ) -> Result<(PackedRows, Squares), String> {
        if self.groups(cols).checked_mul(rows) != Some(chosen.len()) {
            return Err(format!(
                "{} scales for {rows} rows of {} groups",
                chosen.len(),
                self.groups(cols)
            ));
        }
        measure(dtype, bytes, self.search(dtype, bytes, rows, cols, Some(chosen))?)
    }

    /// Chooses scales, unless `chosen` has them, and rounds to them.
    fn search(
        &self,
        dtype: Dtype,
        bytes: &[u8],
        rows: usize,
        cols: usize,
        chosen: Option<&[u32]>,
    ) -> Result<PackedRows, String> {
        let format = self.format();
        let row_bytes = dtype.bytes_of(cols)?;
        if !dtype.is_float() || row_bytes.checked_mul(rows) != Some(bytes.len()) {
            return Err(format!(
                "{} bytes are not {rows} rows of {cols} columns ({dtype:?})",
                bytes.len()
            ));
        }
        let (data_words, scale_words) = (format.data_words(cols), format.scale_words(cols));
        let (data, scales) = (vec![0; rows * data_words], vec![0; rows * scale_words]);
        let mut packed = PackedRows { format, rows, cols, data, scales };
        let data = packed.data.par_chunks_exact_mut(data_words.max(1));
        let scales = packed.scales.par_chunks_exact_mut(scale_words.max(1));
        let work = data.zip(scales).zip(bytes.par_chunks_exact(row_bytes.max(1))).enumerate();
        let fault = work.find_map_first(|(row, ((data, scales), bytes))| {
            let mut values = vec![0.0; cols];
            load_floats(dtype, bytes, &mut values);
            let groups = self.groups(cols);
            let chosen = chosen.map(|chosen| &chosen[row * groups..][..groups]);
            self.search_row(&values, chosen, data, scales)
                .err()
                .map(|reason| format!("row {row} of {rows}, {reason}"))
        });
        fault.map_or(Ok(packed), Err)
    }

    fn search_row(
        &self,
        values: &[f32],
        chosen: Option<&[u32]>,
        data: &mut [u32],
        scales: &mut [u32],
    ) -> Result<(), String> {
        if let Some(at) = round::first_non_finite(values) {
            return Err(format!("column {at} is {}", values[at]));
        }
        let width = self.width();
        let mut out =
            RowWriter::new((self.bits, width, !self.symmetric), values.len(), data, scales);
        let group = self.group_columns(values.len());
        for (index, group_values) in values.chunks(group).enumerate() {
            let given = chosen
                .and_then(|chosen| Levels::of(self.bits, self.symmetric).stored(chosen[index]));
            let steps = given
                .map_or_else(|| self.choose(group_values), Ok)
                .map_err(|reason| format!("columns from {}: {reason}", index * group))?;
            for chunk in group_values.chunks(width) {
                // Padding gets weight 0, or the nearest value to it.
                let mut q = [steps.integer(0.0) as u8; MAX_GROUP];
                for (q, value) in q.iter_mut().zip(chunk) {
                    *q = steps.integer(*value) as u8;
                }
                out.push(
                    &q[..chunk.len().next_multiple_of(width.min(COLUMN_ALIGN))],
                    steps.scale,
                    steps.offset,
                );
            }
        }
        Ok(())
    }

    fn choose(&self, values: &[f32]) -> Result<Steps, String> {
        let levels = Levels::of(self.bits, self.symmetric);
        match (self.method, self.symmetric) {
            (Method::MinMax, true) => levels.steps(levels.symmetric_scale(values), 0.0),
            (Method::MinMax, false) => levels.of_range(range(values)),
            (Method::MseClip, true) => clip_symmetric(levels, values),
            (Method::MseClip, false) => clip_affine(levels, values),
            (Method::Hqq, true) => half_quadratic_scale(levels, values),
            (Method::Hqq, false) => half_quadratic_offset(levels, values),
        }
    }
}

/// Adds the sums over all rows.
fn measure(
    dtype: Dtype,
    bytes: &[u8],
    packed: PackedRows,
) -> Result<(PackedRows, Squares), String> {
    let cols = packed.cols;
    let row_bytes = dtype.bytes_of(cols)?;
    let squares = bytes.par_chunks_exact(row_bytes.max(1)).enumerate().map(|(row, bytes)| {
        let (mut weights, mut rounded) = (vec![0.0; cols], vec![0.0; cols]);
        load_floats(dtype, bytes, &mut weights);
        packed.dequantize_row(row, &mut rounded);
        let square = |value: f32| value as f64 * value as f64;
        Squares {
            error: weights.iter().zip(&rounded).map(|(a, b)| square(a - b)).sum(),
            weight: weights.iter().map(|w| square(*w)).sum(),
        }
    });
    // One after another, so that the sum does not depend on threads.
    let squares = squares.collect::<Vec<_>>().into_iter().fold(Squares::default(), Squares::add);
    Ok((packed, squares))
}

/// The weight of a value's error. Large weights count more because clipping them costs most.
#[derive(Clone, Copy)]
struct Importance {
    mean_square: f32,
}

impl Importance {
    fn among(values: &[f32]) -> Importance {
        Importance {
            mean_square: values.iter().map(|value| value * value).sum::<f32>()
                / values.len() as f32,
        }
    }

    fn of(self, value: f32) -> f32 {
        self.mean_square + value * value
    }
}

/// The weighted sum of squared errors.
fn squared_error(steps: &Steps, values: &[f32], importance: Importance) -> f32 {
    let error =
        |value: &f32| (value - steps.value(steps.level(*value))).powi(2) * importance.of(*value);
    values.iter().map(error).sum()
}

/// Keeps the steps with the smaller error.
struct Best {
    steps: Steps,
    error: f32,
    importance: Importance,
}

impl Best {
    fn new(steps: Steps, values: &[f32]) -> Best {
        let importance = Importance::among(values);
        Best { steps, error: squared_error(&steps, values, importance), importance }
    }

    fn offer(&mut self, steps: Steps, values: &[f32]) {
        let error = squared_error(&steps, values, self.importance);
        if error < self.error {
            *self = Best { steps, error, ..*self };
        }
    }
}

/// The least-squares scale for the values' current levels.
fn least_squares(steps: &Steps, values: &[f32], importance: Importance) -> Option<f32> {
    let (mut product, mut square) = (0.0, 0.0);
    for value in values {
        let (level, importance) = (steps.level(*value) as f32, importance.of(*value));
        product += level * value * importance;
        square += level * level * importance;
    }
    (square > 0.0).then_some(product / square)
}

/// Tries ranges from 60% to 105% of the widest, with either sign of the scale. A least-squares
/// scale comes last.
fn clip_symmetric(levels: Levels, values: &[f32]) -> Result<Steps, String> {
    let widest = levels.symmetric_scale(values);
    let mut best = Best::new(levels.steps(widest, 0.0)?, values);
    let signs: &[f32] = if levels.lowest == -8 { &[1.0, -1.0] } else { &[1.0] };
    for sign in signs {
        for percent in (60..=105).step_by(3) {
            best.offer(levels.steps(sign * widest * percent as f32 / 100.0, 0.0)?, values);
        }
    }
    for _ in 0..2 {
        let Some(scale) = least_squares(&best.steps, values, best.importance) else { break };
        best.offer(levels.steps(scale, 0.0)?, values);
    }
    Ok(best.steps)
}

/// Tries ranges that leave out up to 30% of the width at either end.
fn clip_affine(levels: Levels, values: &[f32]) -> Result<Steps, String> {
    let (min, max) = range(values);
    let mut best = Best::new(levels.of_range((min, max))?, values);
    let cut = (max - min) / 40.0;
    for low in 0..=6 {
        for high in 0..=6 {
            best.offer(levels.of_range((min + cut * low as f32, max - cut * high as f32))?, values);
        }
    }
    Ok(best.steps)
}

/// Iterations of half-quadratic updates.
pub(crate) const HQQ_ITERATIONS: usize = 20;
/// The exponent p of the norm that shrinks the errors in the offset's updates.
pub(crate) const HQQ_P: f32 = 0.7;
/// The inverse of the first threshold, and its growth in each iteration.
pub(crate) const HQQ_BETA: f32 = 10.0;
pub(crate) const HQQ_BETA_GROWTH: f32 = 1.01;

/// Alternates between levels for a scale and the least-squares scale for these levels, from either
/// sign.
fn half_quadratic_scale(levels: Levels, values: &[f32]) -> Result<Steps, String> {
    let widest = levels.symmetric_scale(values);
    let mut best = Best::new(levels.steps(widest, 0.0)?, values);
    let signs: &[f32] = if levels.lowest == -8 { &[1.0, -1.0] } else { &[1.0] };
    for sign in signs {
        let mut steps = levels.steps(sign * widest, 0.0)?;
        for _ in 0..HQQ_ITERATIONS {
            let Some(scale) = least_squares(&steps, values, best.importance) else { break };
            let next = levels.steps(scale, 0.0)?;
            best.offer(next, values);
            if next.scale == steps.scale {
                break;
            }
            steps = next;
        }
    }
    Ok(best.steps)
}

/// Moves the offset to the mean rounding error. The p-norm's proximal step first shrinks outliers.
fn half_quadratic_offset(levels: Levels, values: &[f32]) -> Result<Steps, String> {
    let mut steps = levels.of_range(range(values))?;
    let mut best = Best::new(steps, values);
    // In steps rather than weights, so that the threshold has the same meaning for every group.
    let mut beta = HQQ_BETA;
    for _ in 0..HQQ_ITERATIONS {
        let residual = |value: &f32| {
            let off = value - steps.value(steps.level(*value));
            let steps_off = off * steps.inverse;
            let outlier =
                (steps_off.abs() - steps_off.abs().max(1e-6).powf(HQQ_P - 1.0) / beta).max(0.0);
            off - outlier.copysign(steps_off) * steps.step
        };
        let mean = values.iter().map(residual).sum::<f32>() / values.len() as f32;
        steps = levels.steps(steps.step, steps.zero + mean)?;
        best.offer(steps, values);
        beta *= HQQ_BETA_GROWTH;
    }
    Ok(best.steps)
}

#[cfg(test)]
mod tests;
