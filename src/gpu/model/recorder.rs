//! A list of dispatches under construction: which kernel makes a product, and from activations in
//! which form.

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
        model::{forward::StepShape, layers::Joined, workspace::Scratch},
        weights::matrix::GpuMatrix,
    },
};

/// Where a product's results go: columns from `offset` on of rows `stride` wide.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct Place<'a> {
    pub y: &'a GpuBuffer,
    pub stride: usize,
    pub offset: usize,
}

/// Activations `[rows, stride(cols)]` f32, or what was made of them.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct Input<'a> {
    pub floats: &'a GpuBuffer,
    pub cols: usize,
    /// The one form that is there.
    pub form: Emit,
    /// Where int8 activations and their groups are.
    pub q8: [&'a GpuBuffer; 2],
}

impl<'a> Input<'a> {
    /// int8 activations and their groups, as products bind them.
    fn q8_bindings(&self) -> [(&'static str, &'a GpuBuffer); 2] {
        [("x", self.q8[0]), ("x_groups", self.q8[1])]
    }
}

pub(in crate::gpu) struct Plan<'a> {
    pub gpu: &'a Gpu,
    pub scratch: &'a Scratch,
    pub shape: StepShape,
    /// Rows are output rows, not tokens.
    pub over_outputs: bool,
    pub steps: Vec<Dispatch>,
    /// Where there is one, kernels are only noted in it.
    sources: Option<HashSet<KernelSource>>,
}

impl<'a> Plan<'a> {
    pub fn new(gpu: &'a Gpu, scratch: &'a Scratch, shape: StepShape, over_outputs: bool) -> Self {
        Plan { gpu, scratch, shape, over_outputs, steps: Vec::new(), sources: None }
    }

    /// A plan without steps, which notes the kernels that it would take.
    pub fn of_sources(
        gpu: &'a Gpu,
        scratch: &'a Scratch,
        shape: StepShape,
        over_outputs: bool,
    ) -> Self {
        Plan { sources: Some(HashSet::new()), ..Plan::new(gpu, scratch, shape, over_outputs) }
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

    /// Runs a kernel that leaves its results in the form `emit`; `floats` is where they go as f32.
    pub fn run_emitting(
        &mut self,
        kernel: &dyn Kernel,
        own: &[(&str, &GpuBuffer)],
        emit: Emit,
        floats: &GpuBuffer,
    ) -> Result<()> {
        let s = self.scratch;
        let outputs = match emit {
            Emit::Floats => vec![floats],
            Emit::Q8 => vec![&s.quants, &s.quant_groups],
            Emit::Halves { .. } => vec![&s.halves],
        };
        let outputs = emit.bindings().iter().copied().zip(outputs);
        self.run(kernel, &own.iter().copied().chain(outputs).collect::<Vec<_>>())
    }

    pub fn is_small(&self) -> bool {
        matches!(self.shape, StepShape::One | StepShape::Few(_) | StepShape::FewShared(_))
    }

    /// Rows that the products of few rows have room for.
    fn few(&self) -> usize {
        match self.shape {
            StepShape::Few(rows) | StepShape::FewShared(rows) => rows,
            StepShape::One | StepShape::Many | StepShape::ManyOfOne => 1,
        }
    }

    /// The parts of a product.
    fn linears(&self, matrix: &GpuMatrix, place: Place<'_>, softcap: Option<f32>) -> Vec<Linear> {
        let linear = |part: &crate::gpu::weights::matrix::MatrixPart| Linear {
            format: matrix.format,
            rows: part.rows,
            cols: matrix.cols,
            y_stride: place.stride,
            y_offset: place.offset + part.first_row,
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

    /// The form in which a product takes its activations.
    fn form(&self, matrix: &GpuMatrix, place: Place<'_>, softcap: Option<f32>) -> Emit {
        let variant = self.gpu.variant();
        if self.is_small() {
            let q8 = variant.dp4a && Linear::supports_q8(matrix.format);
            return if q8 { Emit::Q8 } else { Emit::Floats };
        }
        let linears = self.linears(matrix, place, softcap);
        match linears.iter().all(|linear| MatmulCoop::can_run(variant, linear)) {
            true => Emit::Halves { m_stride: self.scratch.row_capacity.next_multiple_of(ROW_TILE) },
            false => Emit::Floats,
        }
    }

    /// The form that suits all of these products, which is floats where they differ.
    pub fn input_form(&self, joined: &Joined, place: Place<'_>) -> Emit {
        let mut forms = joined.iter().map(|(matrix, offset)| {
            let offset = place.offset + offset;
            self.form(matrix, Place { offset, ..place }, None)
        });
        let first = forms.next().unwrap_or(Emit::Floats);
        if forms.all(|form| form == first) { first } else { Emit::Floats }
    }

    /// Products of matrices with one input, side by side in `place`.
    pub fn products(&mut self, joined: &Joined, input: Input<'_>, place: Place<'_>) -> Result<()> {
        let mut there = vec![input.form];
        for (matrix, offset) in joined {
            let place = Place { offset: place.offset + offset, ..place };
            let form = self.form(matrix, place, None);
            if !there.contains(&form) {
                self.convert(input, form)?;
                there.push(form);
            }
            self.product(matrix, input, place, None, 1)?;
        }
        Ok(())
    }

    /// Activations in the scratch buffers for their form.
    pub fn input(&self, floats: &'a GpuBuffer, cols: usize, form: Emit) -> Input<'a> {
        Input { floats, cols, form, q8: [&self.scratch.quants, &self.scratch.quant_groups] }
    }

    fn convert(&mut self, input: Input<'_>, emit: Emit) -> Result<()> {
        debug_assert_eq!(input.form, Emit::Floats, "only floats can be converted");
        let kernel = Convert { cols: input.cols, emit, over_outputs: self.over_outputs };
        self.run_emitting(&kernel, &[("x", input.floats)], emit, input.floats)
    }

    /// One product whose input is floats.
    pub fn single(
        &mut self,
        matrix: &GpuMatrix,
        x: &GpuBuffer,
        place: Place<'_>,
        softcap: Option<f32>,
    ) -> Result<()> {
        let form = self.form(matrix, place, softcap);
        let input = self.input(x, matrix.cols, Emit::Floats);
        if form != Emit::Floats {
            self.convert(input, form)?;
        }
        self.product(matrix, input, place, softcap, 1)
    }

    /// Gate and up and what becomes of them, in one kernel where that can be, else in two; the
    /// input of `down`.
    pub fn gated(
        &mut self,
        gate_up: &Joined,
        down: &GpuMatrix,
        input: Input<'_>,
        place: Place<'a>,
        hidden: &'a GpuBuffer,
    ) -> Result<Input<'a>> {
        let (s, ffn) = (self.scratch, down.cols);
        let form = self.branch_form(down);
        if let ([(matrix, _)], Emit::Q8, Emit::Q8) = (gate_up.as_slice(), input.form, form)
            && let [part] = matrix.parts.as_slice()
            && self.shape == StepShape::One
        {
            let kernel = GatedMatvecQ8(self.linears(matrix, place, None)[0]);
            if kernel.can_run(self.gpu.variant()) {
                let ([data, scales], [x, x_groups]) = (part.bindings(), input.q8_bindings());
                let q8 = [&s.hidden_quants, &s.hidden_quant_groups];
                let out = [("quants", q8[0]), ("quant_groups", q8[1])];
                let step = ("step", &s.step);
                self.run(&kernel, &[data, scales, x, x_groups, step, out[0], out[1]])?;
                return Ok(Input { floats: hidden, cols: ffn, form, q8 });
            }
        }
        let tail = match (gate_up.as_slice(), input.form) {
            ([(matrix, 0)], Emit::Halves { .. }) => self.product_and_tail(matrix, place)?,
            _ => None,
        };
        if tail.is_none() {
            self.products(gate_up, input, place)?;
        }
        let buffers = [("gate_up", place.y), ("tail", &s.branch)];
        let own = if tail.is_some() { &buffers[..] } else { &buffers[..1] };
        self.run_emitting(&GeluMul { n: ffn, emit: form, tail }, own, form, hidden)?;
        Ok(self.input(hidden, ffn, form))
    }

    /// A product of activations in halves whose last rows of weights are one of their own, into
    /// `scratch.branch`, where that is worth it.
    fn product_and_tail(&mut self, matrix: &GpuMatrix, place: Place<'_>) -> Result<Option<UpTail>> {
        let s = self.scratch;
        let ([part], Emit::Halves { m_stride }) =
            (matrix.parts.as_slice(), self.form(matrix, place, None))
        else {
            return Ok(None);
        };
        let Some((cols, parts)) = MatmulCoop::tail(self.gpu.variant(), matrix.rows, s.row_capacity)
        else {
            return Ok(None);
        };
        let part_stride = s.row_capacity * cols;
        if (4 * parts * part_stride) as u64 > s.branch.size() || cols > matrix.rows / 2 {
            return Ok(None);
        }
        let whole = self.linears(matrix, place, None)[0];
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
        self.run(&most, &[data, scales, x, ("y", place.y), step])?;
        self.run(&tail, &[data, scales, x, ("y", &s.branch), step])?;
        Ok(Some(UpTail { cols, parts, part_stride }))
    }

    /// The end of a branch: a product into `scratch.branch`. The result is the sum of so many
    /// parts.
    pub fn branch(&mut self, matrix: &GpuMatrix, input: Input<'_>) -> Result<usize> {
        let place = self.branch_place(matrix);
        let form = self.form(matrix, place, None);
        if form != input.form {
            self.convert(input, form)?;
        }
        let splits = match form {
            Emit::Halves { .. } if matrix.parts.len() == 1 => {
                MatmulCoop::splits(matrix.rows, matrix.cols)
            }
            Emit::Q8 if matrix.parts.len() == 1 => {
                MatvecQ8Split::splits(matrix.rows, self.few(), matrix.tiled, self.gpu.variant())
            }
            _ => 1,
        };
        self.product(matrix, input, place, None, splits)?;
        Ok(splits)
    }

    fn branch_place(&self, matrix: &GpuMatrix) -> Place<'a> {
        Place { y: &self.scratch.branch, stride: stride(matrix.rows), offset: 0 }
    }

    /// The form in which [`Plan::branch`] takes its activations.
    pub fn branch_form(&self, matrix: &GpuMatrix) -> Emit {
        self.form(matrix, self.branch_place(matrix), None)
    }

    /// From one part of a branch to the next, in elements.
    pub fn branch_part_stride(&self, hidden: usize) -> usize {
        let rows = if self.is_small() { self.few() } else { self.scratch.row_capacity };
        rows * stride(hidden)
    }

    /// A product whose input is there in the form that it takes.
    fn product(
        &mut self,
        matrix: &GpuMatrix,
        input: Input<'_>,
        place: Place<'_>,
        softcap: Option<f32>,
        splits: usize,
    ) -> Result<()> {
        let (floats, [quants, groups]) = (("x", input.floats), input.q8_bindings());
        let form = self.form(matrix, place, softcap);
        let s = self.scratch;
        let (y, step) = (("y", place.y), ("step", &s.step));
        for (part, linear) in matrix.parts.iter().zip(self.linears(matrix, place, softcap)) {
            let [data, scales] = part.bindings();
            match form {
                Emit::Q8 if MatvecQ8Split::runs_on(self.gpu.variant()) => {
                    let m = self.few();
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
