//! A list of dispatches under construction: which kernel makes a product, and from activations in
//! which format.

use std::collections::HashSet;

use crate::{
    error::Result,
    gpu::{
        device::{
            buffers::GpuBuffer, dispatch::Dispatch, gpu::Gpu, grid::Grid, source::KernelSource,
        },
        kernels::{
            Convert, Emit, Kernel, Linear, Matmul, MatmulCoop, MatmulLanes, Matvec, MatvecQ8,
            MatvecQ8Split, Prefetch, ROW_TILE, stride,
        },
        model::{layers::FusedProjections, step::StepShape, workspace::Workspace},
        weights::matrix::{GpuMatrix, MatrixPart},
    },
};

/// Where a product's results go: columns from `offset` on of rows `stride` wide.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct OutputView<'a> {
    pub y: &'a GpuBuffer,
    pub stride: usize,
    pub offset: usize,
}

/// Activations `[rows, stride(cols)]` in one format.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct Activations<'a> {
    pub floats: &'a GpuBuffer,
    pub cols: usize,
    /// The one format that is there.
    pub format: Emit,
    /// Where int8 activations and their groups are.
    pub q8: [&'a GpuBuffer; 2],
}

impl<'a> Activations<'a> {
    /// int8 activations and their groups, as products bind them.
    pub fn q8_bindings(&self) -> [(&'static str, &'a GpuBuffer); 2] {
        [("x", self.q8[0]), ("x_groups", self.q8[1])]
    }
}

pub(in crate::gpu) struct Recorder<'a> {
    pub gpu: &'a Gpu,
    pub workspace: &'a Workspace,
    pub shape: StepShape,
    /// Rows are output rows, not tokens.
    pub over_outputs: bool,
    pub steps: Vec<Dispatch>,
    /// If there is one, kernels are only noted in it.
    sources: Option<HashSet<KernelSource>>,
}

impl<'a> Recorder<'a> {
    pub fn new(
        gpu: &'a Gpu,
        workspace: &'a Workspace,
        shape: StepShape,
        over_outputs: bool,
    ) -> Self {
        Recorder { gpu, workspace, shape, over_outputs, steps: Vec::new(), sources: None }
    }

    /// A recorder that notes the kernels of its steps, and makes no dispatches.
    pub fn for_sources(
        gpu: &'a Gpu,
        workspace: &'a Workspace,
        shape: StepShape,
        over_outputs: bool,
    ) -> Self {
        Recorder {
            sources: Some(HashSet::new()),
            ..Recorder::new(gpu, workspace, shape, over_outputs)
        }
    }

    /// The kernels that were noted.
    pub fn into_sources(self) -> HashSet<KernelSource> {
        self.sources.unwrap_or_default()
    }

    /// Adds a kernel, bound to buffers by name.
    pub fn run(&mut self, kernel: &dyn Kernel, buffers: &[(&str, &GpuBuffer)]) -> Result<()> {
        let source = kernel.source(self.gpu.target());
        if let Some(sources) = &mut self.sources {
            sources.insert(source);
            return Ok(());
        }
        let grid: Grid = kernel.grid(self.gpu.target());
        let mut dispatch = self.gpu.dispatch(&source, buffers, grid)?;
        dispatch.cost = kernel.cost();
        self.steps.push(dispatch);
        Ok(())
    }

    /// Runs a kernel that leaves its results in the format `emit`; `floats` is where they go as f32.
    pub fn run_emitting(
        &mut self,
        kernel: &dyn Kernel,
        own: &[(&str, &GpuBuffer)],
        emit: Emit,
        floats: &GpuBuffer,
    ) -> Result<()> {
        let s = self.workspace;
        let outputs = match emit {
            Emit::Floats => vec![floats],
            Emit::Q8 => vec![&s.quants, &s.quant_groups],
            Emit::Halves { .. } => vec![&s.halves],
        };
        let outputs = emit.bindings().iter().copied().zip(outputs);
        self.run(kernel, &own.iter().copied().chain(outputs).collect::<Vec<_>>())
    }

    /// The parts of a product.
    pub fn linears(
        &self,
        matrix: &GpuMatrix,
        view: OutputView<'_>,
        softcap: Option<f32>,
    ) -> Vec<Linear> {
        let linear = |part: &MatrixPart| Linear {
            format: matrix.format,
            rows: part.rows,
            cols: matrix.cols,
            y_stride: view.stride,
            y_offset: view.offset + part.first_row,
            softcap,
            over_outputs: self.over_outputs,
            tiled: matrix.tiled,
        };
        matrix.parts.iter().map(linear).collect()
    }

    /// Brings the matrix of the next product nearer while the kernel before it runs: the addresses of
    /// its pages and its first `ahead_bytes`; of a later matrix, the addresses alone.
    pub fn prefetch(
        &mut self,
        matrix: &GpuMatrix,
        later: &GpuMatrix,
        ahead_bytes: usize,
    ) -> Result<()> {
        let has_scales = |matrix: &GpuMatrix| matrix.format.scale_words(matrix.cols) > 0;
        if !self.gpu.tuning().prefetch
            || !self.shape.is_small()
            || !has_scales(matrix)
            || !has_scales(later)
        {
            return Ok(());
        }
        let (part, later) = (&matrix.parts[0], &later.parts[0]);
        let bytes = |buffer: &GpuBuffer| buffer.size() as usize;
        let kernel = Prefetch {
            data_bytes: bytes(&part.data),
            scale_bytes: bytes(&part.scales),
            later_bytes: [bytes(&later.data), bytes(&later.scales)],
            ahead_bytes,
        };
        let sink = self.gpu.buffer("prefetch", 16)?;
        let [data, scales] = part.bindings();
        let later = [("later_data", &later.data), ("later_scales", &later.scales)];
        self.run(&kernel, &[data, scales, later[0], later[1], ("sink", &sink)])
    }

    /// The format in which a product takes its activations.
    pub fn format(&self, matrix: &GpuMatrix, view: OutputView<'_>, softcap: Option<f32>) -> Emit {
        let target = self.gpu.target();
        if self.shape.is_small() {
            let q8 = target.variant.dp4a && Linear::supports_q8(matrix.format);
            return if q8 { Emit::Q8 } else { Emit::Floats };
        }
        let linears = self.linears(matrix, view, softcap);
        match linears.iter().all(|linear| MatmulCoop::can_run(target, linear)) {
            true => {
                Emit::Halves { m_stride: self.workspace.row_capacity.next_multiple_of(ROW_TILE) }
            }
            false => Emit::Floats,
        }
    }

    /// The format that all of these products take; f32 where they differ.
    pub fn shared_format(&self, projections: &FusedProjections, view: OutputView<'_>) -> Emit {
        let mut formats = projections.iter().map(|(matrix, offset)| {
            let offset = view.offset + offset;
            self.format(matrix, OutputView { offset, ..view }, None)
        });
        let first = formats.next().unwrap_or(Emit::Floats);
        if formats.all(|format| format == first) { first } else { Emit::Floats }
    }

    /// Products of matrices with one input, side by side in `view`.
    pub fn products(
        &mut self,
        projections: &FusedProjections,
        input: Activations<'_>,
        view: OutputView<'_>,
    ) -> Result<()> {
        let mut available = vec![input.format];
        for (matrix, offset) in projections {
            let view = OutputView { offset: view.offset + offset, ..view };
            let format = self.format(matrix, view, None);
            if !available.contains(&format) {
                self.convert(input, format)?;
                available.push(format);
            }
            self.product(matrix, input, view, None, 1)?;
        }
        Ok(())
    }

    /// Activations in the workspace's buffers for their format.
    pub fn activations(&self, floats: &'a GpuBuffer, cols: usize, format: Emit) -> Activations<'a> {
        Activations {
            floats,
            cols,
            format,
            q8: [&self.workspace.quants, &self.workspace.quant_groups],
        }
    }

    fn convert(&mut self, input: Activations<'_>, emit: Emit) -> Result<()> {
        debug_assert_eq!(input.format, Emit::Floats, "only floats can be converted");
        let kernel = Convert { cols: input.cols, emit, over_outputs: self.over_outputs };
        self.run_emitting(&kernel, &[("x", input.floats)], emit, input.floats)
    }

    /// One product whose input is floats.
    pub fn single(
        &mut self,
        matrix: &GpuMatrix,
        x: &GpuBuffer,
        view: OutputView<'_>,
        softcap: Option<f32>,
    ) -> Result<()> {
        let format = self.format(matrix, view, softcap);
        let input = self.activations(x, matrix.cols, Emit::Floats);
        if format != Emit::Floats {
            self.convert(input, format)?;
        }
        self.product(matrix, input, view, softcap, 1)
    }

    /// The last product of attention or the MLP, into `sublayer_output`: a sum of as many splits as
    /// it returns.
    pub fn sublayer_output(&mut self, matrix: &GpuMatrix, input: Activations<'_>) -> Result<usize> {
        let view = self.sublayer_view(matrix);
        let format = self.format(matrix, view, None);
        if format != input.format {
            self.convert(input, format)?;
        }
        let splits = match format {
            Emit::Halves { .. } if matrix.parts.len() == 1 => {
                MatmulCoop::splits(matrix.rows, matrix.cols)
            }
            Emit::Q8 if matrix.parts.len() == 1 => MatvecQ8Split::splits(
                matrix.rows,
                self.shape.batch_rows().unwrap_or(1),
                matrix.tiled,
                self.gpu.target(),
            ),
            _ => 1,
        };
        self.product(matrix, input, view, None, splits)?;
        Ok(splits)
    }

    fn sublayer_view(&self, matrix: &GpuMatrix) -> OutputView<'a> {
        OutputView { y: &self.workspace.sublayer_output, stride: stride(matrix.rows), offset: 0 }
    }

    /// The format in which [`Recorder::sublayer_output`] takes its activations.
    pub fn sublayer_input_format(&self, matrix: &GpuMatrix) -> Emit {
        self.format(matrix, self.sublayer_view(matrix), None)
    }

    /// From one split of a sublayer output to the next, in elements.
    pub fn split_stride(&self, hidden: usize) -> usize {
        self.shape.batch_rows().unwrap_or(self.workspace.row_capacity) * stride(hidden)
    }

    /// A product whose input has the format that it takes.
    fn product(
        &mut self,
        matrix: &GpuMatrix,
        input: Activations<'_>,
        view: OutputView<'_>,
        softcap: Option<f32>,
        splits: usize,
    ) -> Result<()> {
        let (x, [quants, groups]) = (("x", input.floats), input.q8_bindings());
        let format = self.format(matrix, view, softcap);
        let s = self.workspace;
        let (y, step) = (("y", view.y), ("step", &s.step));
        for (part, linear) in matrix.parts.iter().zip(self.linears(matrix, view, softcap)) {
            let [data, scales] = part.bindings();
            match format {
                Emit::Q8 if MatvecQ8Split::runs_on(self.gpu.target()) => {
                    let m = self.shape.batch_rows().unwrap_or(1);
                    let split_stride = m * linear.y_stride;
                    let kernel = MatvecQ8Split { linear, m, splits, split_stride };
                    self.run(&kernel, &[data, scales, quants, groups, step, y])?;
                }
                Emit::Q8 => self.run(&MatvecQ8(linear), &[data, scales, quants, groups, y])?,
                Emit::Halves { m_stride } => {
                    let split_stride = s.row_capacity * linear.y_stride;
                    let kernel =
                        MatmulCoop { linear, first_row: 0, m_stride, splits, split_stride };
                    self.run(&kernel, &[data, scales, ("x", &s.halves), y, step])?;
                }
                Emit::Floats if self.shape.is_small() => {
                    self.run(&Matvec(linear), &[data, scales, x, y])?
                }
                Emit::Floats if self.gpu.tuning().row_per_invocation => {
                    self.run(&MatmulLanes(linear), &[data, scales, x, y, step])?;
                }
                Emit::Floats => self.run(&Matmul(linear), &[data, scales, x, y, step])?,
            }
        }
        Ok(())
    }
}
