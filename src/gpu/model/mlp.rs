//! The MLP of one layer: gelu(gate) · up, then down_proj.

use crate::error::Result;
use crate::gpu::kernels::{
    ActivationFormat, GeluMul, Linear, MatmulCoop, MatvecQ8Gated, UpTail, stride,
};
use crate::gpu::model::layers::GpuLayer;
use crate::gpu::model::linear::{LinearKernel, SplitSum};
use crate::gpu::model::recorder::{Activations, OutputView, PlannedLinear, Recorder};
use crate::gpu::model::step::StepShape;
use crate::gpu::weights::matrix::GpuMatrix;

/// Plans gate and up.
pub(super) fn plan_gate_up<'m>(rec: &Recorder<'m>, layer: &'m GpuLayer) -> Vec<PlannedLinear<'m>> {
    let stride = stride(2 * layer.down_proj.cols);
    rec.plan_fused(&layer.gate_up, OutputView { y: &rec.workspace.gate_up, stride, offset: 0 })
}

/// Normed input → gate, up → hidden → sublayer output.
pub(super) fn mlp(
    rec: &mut Recorder<'_>,
    gate_up: &[PlannedLinear<'_>],
    down: &GpuMatrix,
    input: Activations<'_>,
) -> Result<SplitSum> {
    let down = rec.plan_sublayer(down);
    let hidden = match gated_matvec(rec, gate_up, &down, input)? {
        Some(hidden) => hidden,
        None => gate_then_gelu(rec, gate_up, &down, input)?,
    };
    let sum = down.plan.sum;
    rec.products(&[down], hidden)?;
    Ok(sum)
}

/// Fuses gate, up and their activation in one kernel; `None` if that is impossible.
fn gated_matvec<'a>(
    rec: &mut Recorder<'a>,
    gate_up: &[PlannedLinear<'_>],
    down: &PlannedLinear<'_>,
    input: Activations<'_>,
) -> Result<Option<Activations<'a>>> {
    let (s, cols, format) = (rec.workspace, down.matrix.cols, down.plan.input);
    let ([both], ActivationFormat::Q8Block32, ActivationFormat::Q8Block32) =
        (gate_up, input.format, format)
    else {
        return Ok(None);
    };
    let ([part], [linear], StepShape::Decode) =
        (both.matrix.parts.as_slice(), both.plan.parts.as_slice(), rec.shape)
    else {
        return Ok(None);
    };
    let kernel = MatvecQ8Gated(*linear);
    if !kernel.can_run(rec.gpu.target()) {
        return Ok(None);
    }
    let q8 = [&s.hidden_quants, &s.hidden_quant_groups];
    let out = [("quants", q8[0]), ("quant_groups", q8[1])];
    let ([data, scales], [x, x_groups]) = (part.bindings(), input.q8_bindings());
    rec.run(&kernel, &[data, scales, x, x_groups, ("step", &s.step), out[0], out[1]])?;
    Ok(Some(Activations { floats: s.hidden(cols), cols, format, q8 }))
}

/// Gate and up, then their activation.
fn gate_then_gelu<'a>(
    rec: &mut Recorder<'a>,
    gate_up: &[PlannedLinear<'_>],
    down: &PlannedLinear<'_>,
    input: Activations<'_>,
) -> Result<Activations<'a>> {
    let (s, n, epilogue) = (rec.workspace, down.matrix.cols, down.plan.input);
    let tail = match gate_up {
        [both] if both.plan.input == input.format => product_and_tail(rec, both)?,
        _ => None,
    };
    if tail.is_none() {
        rec.products(gate_up, input)?;
    }
    let buffers = [("gate_up", &s.gate_up), ("tail", &s.sublayer_output)];
    let own = if tail.is_some() { &buffers[..] } else { &buffers[..1] };
    let hidden = s.hidden(n);
    rec.run_with_epilogue(&GeluMul { n, epilogue, tail }, own, epilogue, hidden)?;
    Ok(rec.activations(hidden, n, epilogue))
}

/// Gate and up in two products of f16 activations, if [`MatmulCoop::tail`] suggests that. The
/// results of the last rows go to `sublayer_output`.
fn product_and_tail(rec: &mut Recorder<'_>, gate_up: &PlannedLinear<'_>) -> Result<Option<UpTail>> {
    let (s, matrix) = (rec.workspace, gate_up.matrix);
    let plan = &gate_up.plan;
    let (LinearKernel::MatmulCoop, ActivationFormat::F16Tiled { m_stride, .. }) =
        (plan.kernel, plan.input)
    else {
        return Ok(None);
    };
    let ([part], &[whole]) = (matrix.parts.as_slice(), plan.parts.as_slice()) else {
        return Ok(None);
    };
    let Some((cols, parts)) = MatmulCoop::tail(rec.gpu.target(), matrix.rows, s.row_capacity)
    else {
        return Ok(None);
    };
    let part_stride = s.row_capacity * cols;
    if (4 * parts * part_stride) as u64 > s.sublayer_output.size() || cols > matrix.rows / 2 {
        return Ok(None);
    }
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
    let ([data, scales], x, step) = (part.bindings(), ("x", &s.halves), ("step", &s.step));
    rec.run(&most, &[data, scales, x, ("y", gate_up.y), step])?;
    rec.run(&tail, &[data, scales, x, ("y", &s.sublayer_output), step])?;
    Ok(Some(UpTail { cols, parts, part_stride }))
}
