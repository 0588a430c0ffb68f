//! The choice of the kernels that multiply a matrix in a step of a shape. Only this file makes it.

use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{
    ActivationFormat, Kernel, Linear, Matmul, MatmulCoop, MatmulCoopRows, MatmulRowPerInvocation,
    Matvec, MatvecQ8, MatvecQ8Split, ROW_TILE,
};
use crate::gpu::model::step::StepShape;
use crate::gpu::weights::matrix::{GpuMatrix, MatrixPart};

/// The kernel of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) enum LinearKernel {
    Matvec,
    MatvecQ8,
    MatvecQ8Split,
    Matmul,
    MatmulRowPerInvocation,
    MatmulCoop,
    MatmulCoopRows,
}

impl LinearKernel {
    fn choose(target: &KernelTarget, shape: StepShape, parts: &[Linear]) -> Self {
        let all = |holds: &dyn Fn(&Linear) -> bool| parts.iter().all(holds);
        if let Some(kernel) = shape.room().and_then(|room| Self::of_few_rows(target, room, parts)) {
            return kernel;
        }
        if !shape.is_small() && all(&|linear| MatmulCoop::can_run(target, linear)) {
            LinearKernel::MatmulCoop
        } else if target.tuning.row_per_invocation {
            LinearKernel::MatmulRowPerInvocation
        } else {
            LinearKernel::Matmul
        }
    }

    /// The kernel for steps of this room, if one reads the weights once for all rows.
    fn of_few_rows(target: &KernelTarget, room: usize, parts: &[Linear]) -> Option<Self> {
        let all = |holds: &dyn Fn(&Linear) -> bool| parts.iter().all(holds);
        let is_q8 = target.variant.dp4a && all(&|linear| Linear::supports_q8(linear.format));
        let most_int8_rows = |linear: &Linear| target.tuning.most_int8_rows(linear.rows);
        let is_past_int8 = !is_q8 || !all(&|linear| room <= most_int8_rows(linear));
        if room > 1 && is_past_int8 && all(&|linear| MatmulCoopRows::can_run(target, linear)) {
            return Some(LinearKernel::MatmulCoopRows);
        }
        match (is_q8, MatvecQ8Split::runs_on(target)) {
            _ if room > MatvecQ8Split::MOST_ROWS => None,
            (true, true) => Some(LinearKernel::MatvecQ8Split),
            (true, false) => Some(LinearKernel::MatvecQ8),
            (false, _) => Some(LinearKernel::Matvec),
        }
    }

    /// Whether the kernel reads the number of rows, as `step`.
    pub fn reads_step(self) -> bool {
        !matches!(self, LinearKernel::Matvec | LinearKernel::MatvecQ8)
    }
}

/// Results as a sum over splits of K: `[splits, rows, y_stride]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) struct SplitSum {
    pub splits: usize,
    /// Distance from one split to the next, in elements.
    pub stride: usize,
}

/// The plan of a product: its kernel, formats and splits.
#[derive(Debug, Clone)]
pub(in crate::gpu) struct LinearPlan {
    pub kernel: LinearKernel,
    /// The format of the kernel's activations.
    pub input: ActivationFormat,
    /// One product for each part of the matrix.
    pub parts: Vec<Linear>,
    pub sum: SplitSum,
    /// Rows of activations for which a kernel of few rows is made.
    m: usize,
}

impl LinearPlan {
    /// The plan for a matrix of these parts in steps of a shape, with buffers of `row_capacity`
    /// rows. `may_split`: the kernel that reads the results can add up splits.
    pub fn new(
        target: &KernelTarget,
        shape: StepShape,
        row_capacity: usize,
        parts: Vec<Linear>,
        may_split: bool,
    ) -> Self {
        let kernel = LinearKernel::choose(target, shape, &parts);
        let m = match kernel {
            LinearKernel::MatmulCoopRows => MatmulCoopRows::room(shape.room().unwrap_or(1)),
            _ => shape.room().unwrap_or(1),
        };
        let input = match kernel {
            LinearKernel::MatvecQ8 | LinearKernel::MatvecQ8Split => ActivationFormat::Q8Block32,
            LinearKernel::MatmulCoop => ActivationFormat::F16Tiled {
                m_stride: row_capacity.next_multiple_of(ROW_TILE),
                block: MatmulCoop::BLOCK,
            },
            LinearKernel::MatmulCoopRows => {
                ActivationFormat::F16Tiled { m_stride: m, block: MatmulCoopRows::BLOCK }
            }
            LinearKernel::Matvec | LinearKernel::Matmul | LinearKernel::MatmulRowPerInvocation => {
                ActivationFormat::F32
            }
        };
        let splits = match (kernel, parts.as_slice()) {
            (LinearKernel::MatvecQ8Split, [part]) if may_split => {
                MatvecQ8Split::splits(part.rows, m, part.interleaved16, target)
            }
            (LinearKernel::MatmulCoop, [part]) if may_split => {
                MatmulCoop::splits(part.rows, part.cols)
            }
            (LinearKernel::MatmulCoopRows, [part]) if may_split => {
                MatmulCoopRows::splits(target, part, m)
            }
            _ => 1,
        };
        let y_stride = parts.first().map_or(0, |part| part.y_stride);
        let stride = shape.room().unwrap_or(row_capacity) * y_stride;
        LinearPlan { kernel, input, parts, sum: SplitSum { splits, stride }, m }
    }

    /// The kernels of all parts.
    pub fn kernels(&self) -> impl Iterator<Item = Box<dyn Kernel>> {
        let SplitSum { splits, stride: split_stride } = self.sum;
        self.parts.iter().map(move |&linear| -> Box<dyn Kernel> {
            match (self.kernel, self.input) {
                (LinearKernel::MatmulCoop, ActivationFormat::F16Tiled { m_stride, .. }) => {
                    Box::new(MatmulCoop { linear, first_row: 0, m_stride, splits, split_stride })
                }
                (LinearKernel::MatmulCoopRows, _) => {
                    Box::new(MatmulCoopRows { linear, m: self.m, splits, split_stride })
                }
                (LinearKernel::MatvecQ8Split, _) => {
                    Box::new(MatvecQ8Split { linear, m: self.m, splits, split_stride })
                }
                (LinearKernel::MatvecQ8, _) => Box::new(MatvecQ8(linear)),
                (LinearKernel::Matvec, _) => Box::new(Matvec(linear)),
                (LinearKernel::MatmulRowPerInvocation, _) => {
                    Box::new(MatmulRowPerInvocation(linear))
                }
                (LinearKernel::Matmul | LinearKernel::MatmulCoop, _) => Box::new(Matmul(linear)),
            }
        })
    }
}

/// The activation format that all of these products read; f32 if they differ.
pub(in crate::gpu) fn shared_input<'p>(
    plans: impl IntoIterator<Item = &'p LinearPlan>,
) -> ActivationFormat {
    let mut formats = plans.into_iter().map(|plan| plan.input);
    let first = formats.next().unwrap_or(ActivationFormat::F32);
    if formats.all(|format| format == first) { first } else { ActivationFormat::F32 }
}

/// The products of a matrix's parts. Results go to columns from `y_offset` on of rows `y_stride`
/// wide.
pub(in crate::gpu) fn linears(matrix: &GpuMatrix, y_stride: usize, y_offset: usize) -> Vec<Linear> {
    let linear = |part: &MatrixPart| Linear {
        format: matrix.format,
        rows: part.rows,
        cols: matrix.cols,
        y_stride,
        y_offset: y_offset + part.first_row,
        softcap: None,
        over_outputs: false,
        interleaved16: matrix.interleaved16,
    };
    matrix.parts.iter().map(linear).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gpu::{device::adapter::AdapterFacts, kernels::stride},
        quant::PackFormat,
    };

    const CAPACITY: usize = 512;
    const HALVES: ActivationFormat = ActivationFormat::F16Tiled { m_stride: CAPACITY, block: 32 };

    fn halves(m_stride: usize) -> ActivationFormat {
        ActivationFormat::F16Tiled { m_stride, block: 16 }
    }

    fn target(options: &str) -> KernelTarget {
        let card = AdapterFacts { vendor: 0x10de, ..AdapterFacts::example_card() };
        KernelTarget::choose(&card, &options.parse().unwrap()).unwrap()
    }

    fn linear(format: PackFormat, rows: usize, cols: usize) -> Linear {
        Linear {
            format,
            rows,
            cols,
            y_stride: stride(rows),
            y_offset: 0,
            softcap: None,
            over_outputs: false,
            interleaved16: true,
        }
    }

    fn plan(options: &str, shape: StepShape, parts: Vec<Linear>) -> LinearPlan {
        LinearPlan::new(&target(options), shape, CAPACITY, parts, true)
    }

    /// Kernel, input format and splits by device and shape of step.
    #[test]
    fn the_shape_of_a_step_decides() {
        use LinearKernel as K;
        use StepShape as S;
        let table = [
            ("", S::Decode, K::MatvecQ8Split, ActivationFormat::Q8Block32, 1),
            ("", S::DecodeBatch(8), K::MatvecQ8Split, ActivationFormat::Q8Block32, 4),
            ("", S::ShortPrefill(4), K::MatvecQ8Split, ActivationFormat::Q8Block32, 2),
            ("", S::DecodeBatch(16), K::MatmulCoopRows, halves(16), 8),
            ("", S::ShortPrefill(32), K::MatmulCoopRows, halves(32), 16),
            ("", S::ShortPrompt(64), K::MatmulCoopRows, halves(64), 16),
            ("", S::Prefill, K::MatmulCoop, HALVES, 3),
            ("", S::MixedBatch, K::MatmulCoop, HALVES, 3),
            ("dp4a=off", S::Decode, K::Matvec, ActivationFormat::F32, 1),
            ("dp4a=off", S::DecodeBatch(4), K::MatmulCoopRows, halves(16), 8),
            ("coop=off", S::DecodeBatch(8), K::MatvecQ8Split, ActivationFormat::Q8Block32, 1),
            ("subgroups=off", S::DecodeBatch(4), K::MatvecQ8, ActivationFormat::Q8Block32, 1),
            ("coop=off", S::Prefill, K::Matmul, ActivationFormat::F32, 1),
            (
                "coop=off,row_per_invocation=on",
                S::Prefill,
                K::MatmulRowPerInvocation,
                ActivationFormat::F32,
                1,
            ),
        ];
        for (options, shape, kernel, input, splits) in table {
            let plan = plan(options, shape, vec![linear(PackFormat::INT4, 2560, 10240)]);
            let found = (plan.kernel, plan.input, plan.sum.splits);
            assert_eq!(found, (kernel, input, splits), "{options} {shape:?}");
            let rows = shape.room().unwrap_or(CAPACITY);
            assert_eq!(plan.sum.stride, rows * 2560, "{options} {shape:?}");
        }
    }

    #[test]
    fn unquantized_weights_are_multiplied_in_f32() {
        for (shape, kernel) in [
            (StepShape::Decode, LinearKernel::Matvec),
            (StepShape::DecodeBatch(8), LinearKernel::Matvec),
            (StepShape::DecodeBatch(16), LinearKernel::Matmul),
            (StepShape::Prefill, LinearKernel::Matmul),
        ] {
            let plan = plan("", shape, vec![linear(PackFormat::BF16, 256, 256)]);
            assert_eq!((plan.kernel, plan.input), (kernel, ActivationFormat::F32));
        }
    }

    #[test]
    fn matrices_of_few_and_of_many_rows_have_limits_of_their_own() {
        let mut target = target("");
        target.tuning.most_int8_rows = [8, 2];
        let kernel = |rows, room| {
            let parts = vec![linear(PackFormat::INT4, rows, 4096)];
            let shape = StepShape::DecodeBatch(room);
            LinearPlan::new(&target, shape, CAPACITY, parts, false).kernel
        };
        use LinearKernel::{MatmulCoopRows, MatvecQ8Split};
        assert_eq!([2, 4, 8].map(|room| kernel(43008, room)), [MatvecQ8Split; 3]);
        assert_eq!(kernel(5376, 2), MatvecQ8Split);
        assert_eq!([4, 8].map(|room| kernel(5376, room)), [MatmulCoopRows; 2]);
    }

    #[test]
    fn only_whole_matrices_are_split_and_only_where_the_sum_is_read() {
        let part = linear(PackFormat::INT4, 2560, 10240);
        assert_eq!(plan("", StepShape::Prefill, vec![part; 2]).sum.splits, 1);
        let shape = StepShape::Prefill;
        let single = LinearPlan::new(&target(""), shape, CAPACITY, vec![part], false);
        assert_eq!(single.sum.splits, 1);
    }

    #[test]
    fn products_with_one_input_share_its_format_or_take_f32() {
        let of = |format| plan("", StepShape::Prefill, vec![linear(format, 256, 256)]);
        let (int4, int8, bf16) = (of(PackFormat::INT4), of(PackFormat::INT8), of(PackFormat::BF16));
        assert_eq!(shared_input([&int4, &int8]), HALVES);
        assert_eq!(shared_input([&int4, &bf16]), ActivationFormat::F32);
        assert_eq!(shared_input([]), ActivationFormat::F32);
    }
}
