//! The MLP of one layer: gelu(gate) · up, and the product after it.

use crate::{
    error::Result,
    gpu::{
        kernels::{Emit, GatedMatvecQ8, GeluMul, Linear, MatmulCoop, UpTail, stride},
        model::{
            layers::GpuLayer,
            recorder::{Activations, OutputView, Recorder},
            step::StepShape,
        },
        weights::matrix::GpuMatrix,
    },
};

/// Where the products of gate and up go, for a hidden state of `ffn`.
pub(super) fn gate_up_view<'a>(rec: &Recorder<'a>, ffn: usize) -> OutputView<'a> {
    OutputView { y: &rec.workspace.gate_up, stride: stride(2 * ffn), offset: 0 }
}

/// Normed input → gate, up → hidden → sublayer output, a sum of as many splits as it returns.
pub(super) fn mlp<'a>(
    rec: &mut Recorder<'a>,
    layer: &'a GpuLayer,
    input: Activations<'a>,
) -> Result<usize> {
    let hidden = match gated_matvec(rec, layer, input)? {
        Some(hidden) => hidden,
        None => gate_then_gelu(rec, layer, input)?,
    };
    rec.sublayer_output(&layer.down_proj, hidden)
}

/// Gate, up and their activation in one kernel; `None` where that cannot be.
fn gated_matvec<'a>(
    rec: &mut Recorder<'a>,
    layer: &'a GpuLayer,
    input: Activations<'a>,
) -> Result<Option<Activations<'a>>> {
    let (s, ffn) = (rec.workspace, layer.down_proj.cols);
    let format = rec.sublayer_input_format(&layer.down_proj);
    let ([(matrix, _)], Emit::Q8, Emit::Q8) = (layer.gate_up.as_slice(), input.format, format)
    else {
        return Ok(None);
    };
    let ([part], StepShape::Decode) = (matrix.parts.as_slice(), rec.shape) else {
        return Ok(None);
    };
    let kernel = GatedMatvecQ8(rec.linears(matrix, gate_up_view(rec, ffn), None)[0]);
    if !kernel.can_run(rec.gpu.target()) {
        return Ok(None);
    }
    let q8 = [&s.hidden_quants, &s.hidden_quant_groups];
    let out = [("quants", q8[0]), ("quant_groups", q8[1])];
    let ([data, scales], [x, x_groups]) = (part.bindings(), input.q8_bindings());
    rec.run(&kernel, &[data, scales, x, x_groups, ("step", &s.step), out[0], out[1]])?;
    Ok(Some(Activations { floats: s.hidden(ffn), cols: ffn, format, q8 }))
}

/// Gate and up, then their activation.
fn gate_then_gelu<'a>(
    rec: &mut Recorder<'a>,
    layer: &'a GpuLayer,
    input: Activations<'a>,
) -> Result<Activations<'a>> {
    let (s, ffn) = (rec.workspace, layer.down_proj.cols);
    let format = rec.sublayer_input_format(&layer.down_proj);
    let view = gate_up_view(rec, ffn);
    let tail = match (layer.gate_up.as_slice(), input.format) {
        ([(matrix, 0)], Emit::Halves { .. }) => product_and_tail(rec, matrix, view)?,
        _ => None,
    };
    if tail.is_none() {
        rec.products(&layer.gate_up, input, view)?;
    }
    let buffers = [("gate_up", view.y), ("tail", &s.sublayer_output)];
    let own = if tail.is_some() { &buffers[..] } else { &buffers[..1] };
    let hidden = s.hidden(ffn);
    rec.run_emitting(&GeluMul { n: ffn, emit: format, tail }, own, format, hidden)?;
    Ok(rec.activations(hidden, ffn, format))
}

/// Gate and up in two products of f16 activations, where [`MatmulCoop::tail`] says so: the last rows
/// go to `sublayer_output`.
fn product_and_tail(
    rec: &mut Recorder<'_>,
    matrix: &GpuMatrix,
    view: OutputView<'_>,
) -> Result<Option<UpTail>> {
    let s = rec.workspace;
    let ([part], Emit::Halves { m_stride }) =
        (matrix.parts.as_slice(), rec.format(matrix, view, None))
    else {
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
    let whole = rec.linears(matrix, view, None)[0];
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
    rec.run(&most, &[data, scales, x, ("y", view.y), step])?;
    rec.run(&tail, &[data, scales, x, ("y", &s.sublayer_output), step])?;
    Ok(Some(UpTail { cols, parts, part_stride }))
}
