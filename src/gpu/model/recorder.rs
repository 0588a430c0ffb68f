//! A list of dispatches under construction: which kernel makes a product, and from activations in
//! which format.

use std::collections::HashSet;

use crate::{
    error::Result,
    gpu::{
        device::{
            buffers::GpuBuffer,
            dispatch::{Dispatch, KernelSource},
            gpu::Gpu,
            grid::Grid,
        },
        kernels::{
            Convert, Emit, GatedMatvecQ8, GeluMul, Kernel, Linear, Matmul, MatmulCoop, MatmulLanes,
            Matvec, MatvecQ8, MatvecQ8Split, Prefetch, ROW_TILE, UpTail, stride,
        },
        model::{forward::StepShape, layers::FusedProjections, workspace::Workspace},
        weights::matrix::GpuMatrix,
    },
};

/// Where a product's results go: columns from `offset` on of rows `stride` wide.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct OutputView<'a> {
    pub y: &'a GpuBuffer,
    pub stride: usize,
    pub offset: usize,
}

/// Activations `[rows, stride(cols)]` f32, or what was made of them.
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
    fn q8_bindings(&self) -> [(&'static str, &'a GpuBuffer); 2] {
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
    /// Where there is one, kernels are only noted in it.
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

    /// A plan without steps, which notes the kernels that it would take.
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
        let source = kernel.source(self.gpu.variant());
        if let Some(sources) = &mut self.sources {
            sources.insert(source);
            return Ok(());
        }
        let grid: Grid = kernel.grid(self.gpu.variant());
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

    pub fn is_small(&self) -> bool {
        matches!(
            self.shape,
            StepShape::Decode | StepShape::DecodeBatch(_) | StepShape::ShortPrefill(_)
        )
    }

    /// Rows that the products of few rows have room for.
    fn batch_rows(&self) -> usize {
        match self.shape {
            StepShape::DecodeBatch(rows) | StepShape::ShortPrefill(rows) => rows,
            StepShape::Decode | StepShape::MixedBatch | StepShape::Prefill => 1,
        }
    }

    /// The parts of a product.
    fn linears(
        &self,
        matrix: &GpuMatrix,
        view: OutputView<'_>,
        softcap: Option<f32>,
    ) -> Vec<Linear> {
        let linear = |part: &crate::gpu::weights::matrix::MatrixPart| Linear {
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

    /// Starts to bring the matrix of the next product nearer while the kernel before this runs: the
    /// addresses of its pages, and its first bytes, so many; and the pages of a later one.
    pub fn prefetch(
        &mut self,
        matrix: &GpuMatrix,
        later: &GpuMatrix,
        ahead_bytes: usize,
    ) -> Result<()> {
        let has_scales = |matrix: &GpuMatrix| matrix.format.scale_words(matrix.cols) > 0;
        if !self.gpu.variant().prefetch
            || !self.is_small()
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
    fn format(&self, matrix: &GpuMatrix, view: OutputView<'_>, softcap: Option<f32>) -> Emit {
        let variant = self.gpu.variant();
        if self.is_small() {
            let q8 = variant.dp4a && Linear::supports_q8(matrix.format);
            return if q8 { Emit::Q8 } else { Emit::Floats };
        }
        let linears = self.linears(matrix, view, softcap);
        match linears.iter().all(|linear| MatmulCoop::can_run(variant, linear)) {
            true => {
                Emit::Halves { m_stride: self.workspace.row_capacity.next_multiple_of(ROW_TILE) }
            }
            false => Emit::Floats,
        }
    }

    /// The format that suits all of these products, which is floats where they differ.
    pub fn shared_format(&self, joined: &FusedProjections, view: OutputView<'_>) -> Emit {
        let mut formats = joined.iter().map(|(matrix, offset)| {
            let offset = view.offset + offset;
            self.format(matrix, OutputView { offset, ..view }, None)
        });
        let first = formats.next().unwrap_or(Emit::Floats);
        if formats.all(|format| format == first) { first } else { Emit::Floats }
    }

    /// Products of matrices with one input, side by side in `view`.
    pub fn products(
        &mut self,
        joined: &FusedProjections,
        input: Activations<'_>,
        view: OutputView<'_>,
    ) -> Result<()> {
        let mut there = vec![input.format];
        for (matrix, offset) in joined {
            let view = OutputView { offset: view.offset + offset, ..view };
            let format = self.format(matrix, view, None);
            if !there.contains(&format) {
                self.convert(input, format)?;
                there.push(format);
            }
            self.product(matrix, input, view, None, 1)?;
        }
        Ok(())
    }

    /// Activations in the workspace buffers for their format.
    pub fn input(&self, floats: &'a GpuBuffer, cols: usize, format: Emit) -> Activations<'a> {
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
        let input = self.input(x, matrix.cols, Emit::Floats);
        if format != Emit::Floats {
            self.convert(input, format)?;
        }
        self.product(matrix, input, view, softcap, 1)
    }

    /// Gate and up and what becomes of them, in one kernel where that can be, else in two; the
    /// input of `down`.
    pub fn gated(
        &mut self,
        gate_up: &FusedProjections,
        down: &GpuMatrix,
        input: Activations<'_>,
        view: OutputView<'a>,
        hidden: &'a GpuBuffer,
    ) -> Result<Activations<'a>> {
        let (s, ffn) = (self.workspace, down.cols);
        let format = self.sublayer_input_format(down);
        if let ([(matrix, _)], Emit::Q8, Emit::Q8) = (gate_up.as_slice(), input.format, format)
            && let [part] = matrix.parts.as_slice()
            && self.shape == StepShape::Decode
        {
            let kernel = GatedMatvecQ8(self.linears(matrix, view, None)[0]);
            if kernel.can_run(self.gpu.variant()) {
                let ([data, scales], [x, x_groups]) = (part.bindings(), input.q8_bindings());
                let q8 = [&s.hidden_quants, &s.hidden_quant_groups];
                let out = [("quants", q8[0]), ("quant_groups", q8[1])];
                let step = ("step", &s.step);
                self.run(&kernel, &[data, scales, x, x_groups, step, out[0], out[1]])?;
                return Ok(Activations { floats: hidden, cols: ffn, format, q8 });
            }
        }
        let tail = match (gate_up.as_slice(), input.format) {
            ([(matrix, 0)], Emit::Halves { .. }) => self.product_and_tail(matrix, view)?,
            _ => None,
        };
        if tail.is_none() {
            self.products(gate_up, input, view)?;
        }
        let buffers = [("gate_up", view.y), ("tail", &s.sublayer_output)];
        let own = if tail.is_some() { &buffers[..] } else { &buffers[..1] };
        self.run_emitting(&GeluMul { n: ffn, emit: format, tail }, own, format, hidden)?;
        Ok(self.input(hidden, ffn, format))
    }

    /// A product of activations in halves whose last rows of weights are one of their own, into
    /// `workspace.sublayer_output`, where that is worth it.
    fn product_and_tail(
        &mut self,
        matrix: &GpuMatrix,
        view: OutputView<'_>,
    ) -> Result<Option<UpTail>> {
        let s = self.workspace;
        let ([part], Emit::Halves { m_stride }) =
            (matrix.parts.as_slice(), self.format(matrix, view, None))
        else {
            return Ok(None);
        };
        let Some((cols, parts)) = MatmulCoop::tail(self.gpu.variant(), matrix.rows, s.row_capacity)
        else {
            return Ok(None);
        };
        let part_stride = s.row_capacity * cols;
        if (4 * parts * part_stride) as u64 > s.sublayer_output.size() || cols > matrix.rows / 2 {
            return Ok(None);
        }
        let whole = self.linears(matrix, view, None)[0];
        let first_row = matrix.rows - cols;
        let most = MatmulCoop {
            linear: Linear { rows: first_row, ..whole },
            first_row: 0,
            m_stride,
            splits: 1,
            split_stride: 0,
        };
        let tail = MatmulCoop {
            linear: Linear { rows: cols, y_stride: cols, y_offset: 0, ..whole },
            first_row,
            m_stride,
            splits: parts,
            split_stride: part_stride,
        };
        let [data, scales] = part.bindings();
        let (x, step) = (("x", &s.halves), ("step", &s.step));
        self.run(&most, &[data, scales, x, ("y", view.y), step])?;
        self.run(&tail, &[data, scales, x, ("y", &s.sublayer_output), step])?;
        Ok(Some(UpTail { cols, parts, part_stride }))
    }

    /// The end of a branch: a product into `workspace.sublayer_output`. The result is the sum of so many
    /// parts.
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
                self.batch_rows(),
                matrix.tiled,
                self.gpu.variant(),
            ),
            _ => 1,
        };
        self.product(matrix, input, view, None, splits)?;
        Ok(splits)
    }

    fn sublayer_view(&self, matrix: &GpuMatrix) -> OutputView<'a> {
        OutputView { y: &self.workspace.sublayer_output, stride: stride(matrix.rows), offset: 0 }
    }

    /// The format in which [`Recorder::branch`] takes its activations.
    pub fn sublayer_input_format(&self, matrix: &GpuMatrix) -> Emit {
        self.format(matrix, self.sublayer_view(matrix), None)
    }

    /// From one part of a branch to the next, in elements.
    pub fn split_stride_of(&self, hidden: usize) -> usize {
        let rows = if self.is_small() { self.batch_rows() } else { self.workspace.row_capacity };
        rows * stride(hidden)
    }

    /// A product whose input is there in the format that it takes.
    fn product(
        &mut self,
        matrix: &GpuMatrix,
        input: Activations<'_>,
        view: OutputView<'_>,
        softcap: Option<f32>,
        splits: usize,
    ) -> Result<()> {
        let (floats, [quants, groups]) = (("x", input.floats), input.q8_bindings());
        let format = self.format(matrix, view, softcap);
        let s = self.workspace;
        let (y, step) = (("y", view.y), ("step", &s.step));
        for (part, linear) in matrix.parts.iter().zip(self.linears(matrix, view, softcap)) {
            let [data, scales] = part.bindings();
            match format {
                Emit::Q8 if MatvecQ8Split::runs_on(self.gpu.variant()) => {
                    let m = self.batch_rows();
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
                Emit::Floats if self.is_small() => {
                    self.run(&Matvec(linear), &[data, scales, floats, y])?
                }
                Emit::Floats if self.gpu.variant().lanes => {
                    self.run(&MatmulLanes(linear), &[data, scales, floats, y, step])?;
                }
                Emit::Floats => self.run(&Matmul(linear), &[data, scales, floats, y, step])?,
            }
        }
        Ok(())
    }
}
