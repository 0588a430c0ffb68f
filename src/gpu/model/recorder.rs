//! Records the list of dispatches of a step.

use std::collections::HashSet;

use crate::error::Result;
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::device::dispatch::Dispatch;
use crate::gpu::device::gpu::Gpu;
use crate::gpu::device::grid::Grid;
use crate::gpu::device::source::KernelSource;
use crate::gpu::kernels::{
    ActivationFormat, Convert, Kernel, Linear, MatvecQ8Split, Prefetch, stride,
};
use crate::gpu::model::layers::FusedProjections;
use crate::gpu::model::linear::{self, LinearPlan, linears};
use crate::gpu::model::step::StepShape;
use crate::gpu::model::workspace::Workspace;
use crate::gpu::weights::matrix::GpuMatrix;

/// The place of a product's results: columns from `offset` on of rows `stride` wide.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct OutputView<'a> {
    pub y: &'a GpuBuffer,
    pub stride: usize,
    pub offset: usize,
}

/// Activations `[rows, stride(cols)]` in one format.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct Activations<'a> {
    /// The buffer of the f32 values.
    pub floats: &'a GpuBuffer,
    pub cols: usize,
    pub format: ActivationFormat,
    /// The buffers of the int8 values and their groups.
    pub q8: [&'a GpuBuffer; 2],
}

impl<'a> Activations<'a> {
    /// int8 activations and their groups, by the names of their bindings.
    pub fn q8_bindings(&self) -> [(&'static str, &'a GpuBuffer); 2] {
        [("x", self.q8[0]), ("x_groups", self.q8[1])]
    }
}

/// A matrix, the plan of its product, and the place of the results.
pub(in crate::gpu) struct PlannedLinear<'a> {
    pub matrix: &'a GpuMatrix,
    pub plan: LinearPlan,
    pub y: &'a GpuBuffer,
}

/// The format that all of these products read; f32 if they differ.
pub(in crate::gpu) fn shared_input(linears: &[PlannedLinear<'_>]) -> ActivationFormat {
    linear::shared_input(linears.iter().map(|linear| &linear.plan))
}

/// Records the dispatches of a step of one shape.
pub(in crate::gpu) struct Recorder<'a> {
    pub gpu: &'a Gpu,
    pub workspace: &'a Workspace,
    pub shape: StepShape,
    /// Rows are output rows, not tokens.
    pub over_outputs: bool,
    pub steps: Vec<Dispatch>,
    /// If this is set, kernels are only noted in it.
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

    /// A recorder that only notes the kernels of its steps, without dispatches.
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

    /// Runs a kernel that writes its results in the format `epilogue`. Its f32 results go to
    /// `floats`.
    pub fn run_with_epilogue(
        &mut self,
        kernel: &dyn Kernel,
        own: &[(&str, &GpuBuffer)],
        epilogue: ActivationFormat,
        floats: &GpuBuffer,
    ) -> Result<()> {
        let s = self.workspace;
        let outputs = match epilogue {
            ActivationFormat::F32 => vec![floats],
            ActivationFormat::Q8Block32 => vec![&s.quants, &s.quant_groups],
            ActivationFormat::F16Tiled { .. } => vec![&s.halves],
        };
        let outputs = epilogue.bindings().iter().copied().zip(outputs);
        self.run(kernel, &own.iter().copied().chain(outputs).collect::<Vec<_>>())
    }

    /// Plans the product of a matrix.
    pub fn plan<'m>(
        &self,
        matrix: &'m GpuMatrix,
        view: OutputView<'m>,
        softcap: Option<f32>,
    ) -> PlannedLinear<'m> {
        self.plan_linears(matrix, view, softcap, false)
    }

    /// Plans the products of matrices with one input, side by side in `view`.
    pub fn plan_fused<'m>(
        &self,
        projections: &'m FusedProjections,
        view: OutputView<'m>,
    ) -> Vec<PlannedLinear<'m>> {
        let plan = |(matrix, offset): &'m (GpuMatrix, usize)| {
            self.plan(matrix, OutputView { offset: view.offset + offset, ..view }, None)
        };
        projections.iter().map(plan).collect()
    }

    /// Plans the last product of attention or the MLP. Its results are a sum of splits in
    /// `sublayer_output`.
    pub fn plan_sublayer<'m>(&self, matrix: &'m GpuMatrix) -> PlannedLinear<'m>
    where
        'a: 'm,
    {
        let y = &self.workspace.sublayer_output;
        let view = OutputView { y, stride: stride(matrix.rows), offset: 0 };
        self.plan_linears(matrix, view, None, true)
    }

    fn plan_linears<'m>(
        &self,
        matrix: &'m GpuMatrix,
        view: OutputView<'m>,
        softcap: Option<f32>,
        may_split: bool,
    ) -> PlannedLinear<'m> {
        let with_rows = |linear| Linear { softcap, over_outputs: self.over_outputs, ..linear };
        let parts = linears(matrix, view.stride, view.offset).into_iter().map(with_rows).collect();
        let (target, capacity) = (self.gpu.target(), self.workspace.row_capacity);
        let plan = LinearPlan::new(target, self.shape, capacity, parts, may_split);
        PlannedLinear { matrix, plan, y: view.y }
    }

    /// Prefetches the next product's matrix into the cache while the previous kernel runs. It reads
    /// the first `ahead_bytes`, and an address of every page of this and of a later matrix. Only
    /// matrix-vector products read at the memory's rate, so other steps have nothing to gain.
    pub fn prefetch(
        &mut self,
        matrix: &GpuMatrix,
        later: &GpuMatrix,
        ahead_bytes: usize,
    ) -> Result<()> {
        let has_scales = |matrix: &GpuMatrix| matrix.format.scale_words(matrix.cols) > 0;
        let is_matvec = self.shape.room().is_some_and(|room| room <= MatvecQ8Split::MOST_ROWS);
        if !self.gpu.tuning().prefetch || !is_matvec || !has_scales(matrix) || !has_scales(later) {
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

    /// Products of one input, which is first converted from f32 to each format that is missing.
    pub fn products(
        &mut self,
        linears: &[PlannedLinear<'_>],
        input: Activations<'_>,
    ) -> Result<()> {
        let mut available = vec![input.format];
        for linear in linears {
            let format = linear.plan.input;
            if !available.contains(&format) {
                self.convert(input, format)?;
                available.push(format);
            }
            self.product(linear, input)?;
        }
        Ok(())
    }

    /// A product whose input already has the right format.
    fn product(&mut self, linear: &PlannedLinear<'_>, input: Activations<'_>) -> Result<()> {
        let s = self.workspace;
        let PlannedLinear { matrix, plan, y } = linear;
        let mut shared = match plan.input {
            ActivationFormat::F32 => vec![("x", input.floats)],
            ActivationFormat::Q8Block32 => input.q8_bindings().to_vec(),
            ActivationFormat::F16Tiled { .. } => vec![("x", &s.halves)],
        };
        shared.push(("y", y));
        if plan.kernel.reads_step() {
            shared.push(("step", &s.step));
        }
        for (part, kernel) in matrix.parts.iter().zip(plan.kernels()) {
            self.run(&*kernel, &[&part.bindings(), &shared[..]].concat())?;
        }
        Ok(())
    }

    /// Activations, with the workspace's buffers for each format.
    pub fn activations(
        &self,
        floats: &'a GpuBuffer,
        cols: usize,
        format: ActivationFormat,
    ) -> Activations<'a> {
        Activations {
            floats,
            cols,
            format,
            q8: [&self.workspace.quants, &self.workspace.quant_groups],
        }
    }

    fn convert(&mut self, input: Activations<'_>, epilogue: ActivationFormat) -> Result<()> {
        debug_assert_eq!(input.format, ActivationFormat::F32, "only floats can be converted");
        let kernel = Convert { cols: input.cols, epilogue, over_outputs: self.over_outputs };
        self.run_with_epilogue(&kernel, &[("x", input.floats)], epilogue, input.floats)
    }
}
