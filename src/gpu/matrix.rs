//! Weight matrices on the device, split by rows where one binding cannot hold them.

use rayon::prelude::*;

use super::{
    Gpu, GpuBuffer,
    kernels::{Linear, TILE_ROWS},
    upload::Uploads,
};
use crate::{
    Result,
    checkpoint::TensorSource,
    quant::PackFormat,
    weights::{MatrixReader, PlannedTensor, WeightStore},
};

/// Bytes handed to the queue before it is flushed: bounds the host copies that wait for transfer.
const FLUSH_BYTES: u64 = 64 << 20;

/// Consecutive rows of a matrix in one pair of buffers.
pub struct MatrixPart {
    pub first_row: usize,
    pub rows: usize,
    /// See [`PackFormat`].
    pub data: GpuBuffer,
    /// A few unused bytes for float formats.
    pub scales: GpuBuffer,
}

/// A packed weight matrix `[rows, cols]`.
pub struct GpuMatrix {
    pub format: PackFormat,
    pub rows: usize,
    pub cols: usize,
    /// Whether runs of [`TILE_ROWS`] rows are interleaved, see `weight_place.wgsl`: 5 to 10% faster on cooperative
    /// matrices.
    pub tiled: bool,
    pub parts: Vec<MatrixPart>,
}

impl GpuMatrix {
    /// Room for a matrix, split so that every part fits one binding.
    pub(super) fn allocate(gpu: &Gpu, name: &str, format: PackFormat, rows: usize, cols: usize) -> Result<Self> {
        let (data_bytes, scale_bytes) = (4 * format.data_words(cols) as u64, 4 * format.scale_words(cols) as u64);
        let facts = gpu.facts();
        let limit = facts.max_binding_bytes.min(facts.max_buffer_bytes);
        let rows_per_part = ((limit / data_bytes.max(1)) as usize).clamp(1, rows.max(1));
        // Parts of equal size, in whole workgroups' worth of rows.
        let parts = rows.div_ceil(rows_per_part);
        let rows_per_part = rows.div_ceil(parts).next_multiple_of(64).min(rows_per_part);
        let in_nibbles = matches!(format, PackFormat::Int { bits: 4, .. } | PackFormat::Iq4);
        let tiled = gpu.variant().coop
            && in_nibbles
            && Linear::supports_q8(format)
            && rows.is_multiple_of(TILE_ROWS)
            && rows_per_part.is_multiple_of(TILE_ROWS);
        let mut matrix = GpuMatrix { format, rows, cols, tiled, parts: Vec::new() };
        for first_row in (0..rows).step_by(rows_per_part) {
            let rows = rows_per_part.min(rows - first_row);
            matrix.parts.push(MatrixPart {
                first_row,
                rows,
                data: gpu.buffer(name, data_bytes * rows as u64)?,
                scales: gpu.buffer(name, scale_bytes * rows as u64)?,
            });
        }
        Ok(matrix)
    }

    /// One matrix of the rows of several, which are let go; them unchanged if their formats differ or one binding
    /// cannot hold them.
    pub(super) fn join(gpu: &Gpu, matrices: Vec<GpuMatrix>) -> Result<Vec<GpuMatrix>> {
        let facts = gpu.facts();
        let limit = facts.max_binding_bytes.min(facts.max_buffer_bytes);
        let (format, cols) = (matrices[0].format, matrices[0].cols);
        let rows: usize = matrices.iter().map(|matrix| matrix.rows).sum();
        let tiled = matrices[0].tiled;
        let alike = |matrix: &GpuMatrix| {
            matrix.parts.len() == 1 && (matrix.format, matrix.cols, matrix.tiled) == (format, cols, tiled)
        };
        let bytes = 4 * (rows * format.data_words(cols)) as u64;
        if matrices.len() == 1 || bytes > limit || !matrices.iter().all(alike) {
            return Ok(matrices);
        }
        let joined = GpuMatrix::allocate(gpu, "joined weights", format, rows, cols)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut first = 0;
        for matrix in &matrices {
            let (from, to) = (&matrix.parts[0], &joined.parts[0]);
            let words =
                [(&from.data, &to.data, format.data_words(cols)), (&from.scales, &to.scales, format.scale_words(cols))];
            for (from, to, words) in words.into_iter().filter(|(.., words)| *words > 0) {
                let row_bytes = 4 * words as u64;
                encoder.copy_buffer_to_buffer(from, 0, to, first * row_bytes, matrix.rows as u64 * row_bytes);
            }
            first += matrix.rows as u64;
        }
        gpu.queue().submit([encoder.finish()]);
        drop(matrices);
        // Frees what was let go before the next allocation.
        gpu.wait()?;
        Ok(vec![joined])
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.rows as u64 * self.format.row_bytes(self.cols) as u64
    }
}

/// Rows of `row_words` in runs of [`TILE_ROWS`], within which units of `unit` words take turns: `weight_place.wgsl`'s order.
/// There must be whole runs of rows, and whole units in a row. Units are of 4 words or 1.
pub fn tile(rows: &[u32], row_words: usize, unit: usize) -> Vec<u32> {
    debug_assert!(
        rows.len().is_multiple_of(TILE_ROWS * row_words) && row_words.is_multiple_of(unit) && [1, 4].contains(&unit)
    );
    match unit {
        4 => tile_units::<4>(rows, row_words),
        _ => tile_units::<1>(rows, row_words),
    }
}

fn tile_units<const UNIT: usize>(rows: &[u32], row_words: usize) -> Vec<u32> {
    let mut tiled = vec![0; rows.len()];
    let run_words = TILE_ROWS * row_words;
    tiled.par_chunks_exact_mut(run_words).zip(rows.par_chunks_exact(run_words)).for_each(|(tiled, run)| {
        let tiled = tiled.as_chunks_mut::<UNIT>().0;
        for (row, words) in run.chunks_exact(row_words).enumerate() {
            for (from, to) in words.as_chunks::<UNIT>().0.iter().zip(tiled[row..].iter_mut().step_by(TILE_ROWS)) {
                *to = *from;
            }
        }
    });
    tiled
}

/// Uploads weights as they are read.
pub(super) struct GpuStore {
    gpu: Gpu,
    bytes: u64,
    unflushed: u64,
    /// For what the device lays out.
    uploads: Option<Uploads>,
}

impl GpuStore {
    /// A store for these tensors.
    ///
    /// Errors: no memory for the buffers that they pass through.
    pub fn new(gpu: Gpu, tensors: &[PlannedTensor]) -> Result<Self> {
        let uploads = Uploads::new(&gpu, tensors)?;
        Ok(GpuStore { gpu, bytes: 0, unflushed: 0, uploads })
    }

    async fn write(&mut self, buffer: &wgpu::Buffer, offset: u64, words: &[u32]) -> Result<()> {
        if words.is_empty() {
            return Ok(());
        }
        self.gpu.queue().write_buffer(buffer, offset, bytemuck::cast_slice(words));
        self.unflushed += 4 * words.len() as u64;
        if self.unflushed >= FLUSH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits until everything written has reached the device.
    async fn flush(&mut self) -> Result<()> {
        self.unflushed = 0;
        self.gpu.queue().submit([]);
        self.gpu.finished().await
    }

    /// Packs a matrix here and writes it.
    async fn pack(&mut self, reader: &mut MatrixReader<'_>, matrix: &GpuMatrix) -> Result<()> {
        let (data_words, scale_words) = (matrix.format.data_words(matrix.cols), matrix.format.scale_words(matrix.cols));
        for part in &matrix.parts {
            let mut done = 0;
            while done < part.rows {
                let Some((_, packed)) = reader.next(part.rows - done).await? else { break };
                let (data, scales) = match matrix.tiled {
                    true => (tile(&packed.data, data_words, 4), tile(&packed.scales, scale_words, 1)),
                    false => (packed.data, packed.scales),
                };
                self.write(&part.data, 4 * (done * data_words) as u64, &data).await?;
                self.write(&part.scales, 4 * (done * scale_words) as u64, &scales).await?;
                done += packed.rows;
            }
        }
        Ok(())
    }

    /// Waits until all weights lie on the device as they should. Returns their bytes.
    ///
    /// Errors: see [`Uploads::finish`].
    pub async fn finish(mut self, source: &dyn TensorSource) -> Result<u64> {
        if let Some(uploads) = self.uploads.take() {
            uploads.finish(source).await?;
        }
        self.flush().await?;
        Ok(self.bytes)
    }
}

impl WeightStore for GpuStore {
    type Matrix = GpuMatrix;
    type Vector = GpuBuffer;

    async fn matrix(&mut self, mut reader: MatrixReader<'_>) -> Result<GpuMatrix> {
        let matrix = GpuMatrix::allocate(&self.gpu, reader.name, reader.format, reader.rows, reader.cols)?;
        match &mut self.uploads {
            Some(uploads) if uploads.takes(&reader) => uploads.send(&mut reader, &matrix).await?,
            _ => self.pack(&mut reader, &matrix).await?,
        }
        self.bytes += matrix.bytes();
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<GpuBuffer> {
        self.bytes += 4 * values.len() as u64;
        self.gpu.buffer_of(name, bytemuck::cast_slice(&values))
    }
}
