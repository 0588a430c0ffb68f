//! Half-quadratic quantization on the device, for `quantize`.

use crate::error::{Error, Result};
use crate::gpu::device::{gpu::Gpu, grid::StepSize};
use crate::gpu::kernels::{Kernel, QuantizeHqq};
use crate::quant::Dtype;
use crate::quant::methods::{Method, Spec};

/// Most columns of a group, which one invocation computes. Longer groups would leave most of a
/// device idle, and exceed the system's time limit for a submission.
const LONGEST_GROUP: usize = 1024;

impl Gpu {
    /// Whether [`Gpu::choose_steps`] supports matrices of `cols` columns: hqq in groups of at most
    /// 1024 columns.
    pub fn chooses(spec: &Spec, cols: usize) -> bool {
        spec.method == Method::Hqq && spec.group_columns(cols) <= LONGEST_GROUP
    }

    /// Scale and offset of each group of stored rows of floats, `[rows, groups]`: see
    /// [`Spec::quantize_chosen`].
    ///
    /// Errors: `bytes` are not these rows; they exceed one binding; the device fails.
    pub async fn choose_steps(
        &self,
        spec: &Spec,
        dtype: Dtype,
        bytes: &[u8],
        rows: usize,
        cols: usize,
    ) -> Result<Vec<u32>> {
        let row_bytes = dtype.bytes_of(cols).map_err(Error::Input)?;
        if !dtype.is_float() || row_bytes.checked_mul(rows) != Some(bytes.len()) {
            let what =
                format!("{} bytes are not {rows} rows of {cols} columns ({dtype:?})", bytes.len());
            return Err(Error::Input(what));
        }
        let groups = rows * spec.groups(cols);
        if groups == 0 {
            return Ok(Vec::new());
        }
        let source = self.buffer("weights to quantize", bytes.len() as u64)?;
        let (words, rest) = bytes.split_at(bytes.len() / 4 * 4);
        self.queue().write_buffer(&source, 0, words);
        if let [low, high] = rest {
            self.queue().write_buffer(&source, words.len() as u64, &[*low, *high, 0, 0]);
        }
        let chosen = self.buffer("scales", 4 * groups as u64)?;
        let kernel = QuantizeHqq { spec: *spec, dtype, rows, cols };
        let dispatch = self.dispatch(
            &kernel.source(self.target()),
            &[("source", &source), ("chosen", &chosen)],
            kernel.grid(self.target()),
        )?;
        let mut encoder = self.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        dispatch.encode(&mut pass, StepSize::default());
        drop(pass);
        self.queue().submit([encoder.finish()]);
        let mut words: Vec<u32> = self.download(&chosen).await?;
        // The buffer may be longer than the result.
        words.truncate(groups);
        Ok(words)
    }
}
