//! Weights that the device packs: the host copies the checkpoint's bytes, and a kernel repacks
//! them.

use std::{collections::VecDeque, time::Duration};

use rayon::prelude::*;
use web_time::Instant;

use crate::error::{Error, Result};
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::device::faults::one_line;
use crate::gpu::device::gpu::{Gpu, Mapping, buffer_size};
use crate::gpu::device::grid::StepSize;
use crate::gpu::kernels::{Kernel, Repack};
use crate::gpu::weights::matrix::{GpuMatrix, MatrixPart};
use crate::gpu::weights::slices::{Slice, for_each_slice};
use crate::model::matrix_reader::{self, MatrixReader};
use crate::model::source::TensorSource;
use crate::model::weights::PlannedTensor;
use crate::quant::{Dtype, PackFormat};

/// Number of staging buffers. The host fills one while the device copies the others.
const SLOTS: usize = 4;
/// Bytes that one thread copies at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A matrix that was sent, with the facts that an error message needs.
struct Sent {
    name: String,
    dtype: Dtype,
    format: PackFormat,
    rows: usize,
    cols: usize,
    /// The number of rows in each part.
    part_rows: Vec<usize>,
}

/// Sends slices to the device. Matrices must not be used before [`RepackSink::finish`] has found no
/// faults.
pub(in crate::gpu) struct RepackSink {
    gpu: Gpu,
    slot_bytes: u64,
    slots: usize,
    /// Slots whose transfer was submitted, the oldest first.
    under_way: VecDeque<Mapping>,
    /// The device's copy of a slot.
    stored: GpuBuffer,
    /// For each matrix the first row that its format cannot hold.
    faults: GpuBuffer,
    /// Number of matrices for which `faults` has a word.
    capacity: usize,
    sent: Vec<Sent>,
    times: Times,
}

/// The times of the host's work.
#[derive(Default)]
struct Times {
    bytes: u64,
    /// Reading a file and writing to a slot.
    copying: Duration,
    /// Waiting for a slot, and at the end for the last slots.
    waiting: Duration,
}

/// Bytes of a slot for these tensors, and the number of tensors to send; `None` if there are none.
fn sizes(tensors: &[PlannedTensor]) -> Option<(u64, usize)> {
    let slices =
        tensors.iter().filter_map(|tensor| match (tensor.format, tensor.info.shape.as_slice()) {
            (Some(format), &[rows, cols]) => slice_bytes(tensor.info.dtype, format, rows, cols),
            _ => None,
        });
    let (largest, count) =
        slices.fold((0, 0), |(largest, count), bytes| (bytes.max(largest), count + 1));
    let around = Repack::HEADER_BYTES + Repack::SLACK_BYTES;
    (count > 0).then(|| (buffer_size(largest + around as u64), count))
}

/// Bytes of a matrix's largest slice; `None` if the device does not pack it.
fn slice_bytes(dtype: Dtype, format: PackFormat, rows: usize, cols: usize) -> Option<u64> {
    matrix_reader::slice_bytes(dtype, rows, cols).filter(|_| Repack::supports(dtype, format))
}

impl RepackSink {
    /// Most bytes of the buffers with which these tensors are sent.
    pub fn bytes(gpu: &Gpu, tensors: &[PlannedTensor]) -> u64 {
        match sizes(tensors) {
            Some((slot, count)) if gpu.tuning().repack => {
                (SLOTS as u64 + 1) * slot + buffer_size(4 * count as u64)
            }
            _ => 0,
        }
    }

    /// Buffers for sending these tensors; `None` if the device packs none of them.
    ///
    /// Errors: the buffers are larger than the device allows, or out of memory.
    pub fn new(gpu: &Gpu, tensors: &[PlannedTensor]) -> Result<Option<Self>> {
        let Some((slot_bytes, capacity)) = sizes(tensors).filter(|_| gpu.tuning().repack) else {
            return Ok(None);
        };
        Ok(Some(RepackSink {
            gpu: gpu.clone(),
            slot_bytes,
            slots: 0,
            under_way: VecDeque::new(),
            stored: gpu.buffer("stored weights", slot_bytes)?,
            faults: gpu.buffer_of("faults of weights", &vec![u32::MAX; capacity])?,
            capacity,
            sent: Vec::new(),
            times: Times::default(),
        }))
    }

    /// Whether the device packs this matrix.
    pub fn takes(&self, reader: &MatrixReader<'_>) -> bool {
        let bytes = slice_bytes(reader.dtype(), reader.format, reader.rows, reader.cols);
        let around = (Repack::HEADER_BYTES + Repack::SLACK_BYTES) as u64;
        self.sent.len() < self.capacity
            && bytes.is_some_and(|bytes| bytes + around <= self.slot_bytes)
    }

    /// Sends a slice of a matrix that [`RepackSink::takes`].
    ///
    /// Errors: a failed device.
    pub(super) async fn write(
        &mut self,
        matrix: &GpuMatrix,
        slice: Slice<'_, '_, &MatrixPart>,
    ) -> Result<()> {
        let header = Repack::header(slice.rows, slice.part_row, slice.row, self.sent.len());
        let (dtype, rows) = (slice.reader.dtype(), slice.rows);
        let kernel = Repack { dtype, cols: matrix.cols, rows, interleaved16: matrix.interleaved16 };
        self.send_rows(header, slice.bytes, kernel, slice.part).await
    }

    /// Notes that all rows of a reader were sent to a matrix, from its row `first` on.
    pub fn end(&mut self, reader: &MatrixReader<'_>, matrix: &GpuMatrix, first: usize) {
        let part_rows = matrix.row_ranges(first, reader.rows).map(|(_, _, rows)| rows).collect();
        self.sent.push(Sent {
            name: reader.name.into(),
            dtype: reader.dtype(),
            format: matrix.format,
            rows: reader.rows,
            cols: matrix.cols,
            part_rows,
        });
    }

    async fn send_rows(
        &mut self,
        header: [u32; 4],
        rows: &[u8],
        kernel: Repack,
        part: &MatrixPart,
    ) -> Result<()> {
        let begin = Instant::now();
        let slot = self.slot().await?;
        let filling = Instant::now();
        fill(&slot, &header, rows)?;
        self.times.bytes += rows.len() as u64;
        self.times.waiting += filling - begin;
        self.times.copying += filling.elapsed();
        slot.unmap();
        let gpu = &self.gpu;
        let [data, scales] = part.bindings();
        let buffers = [("stored", &self.stored), data, scales, ("faults", &self.faults)];
        let dispatch =
            gpu.dispatch(&kernel.source(gpu.target()), &buffers, kernel.grid(gpu.target()))?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let bytes = (Repack::HEADER_BYTES + rows.len()).next_multiple_of(4) as u64;
        encoder.copy_buffer_to_buffer(&slot, 0, &self.stored, 0, bytes);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        dispatch.encode(&mut pass, StepSize::default());
        drop(pass);
        let submission = gpu.queue().submit([encoder.finish()]);
        // wgpu zeroes a buffer's first mapping only.
        self.under_way.push_back(gpu.map(slot, wgpu::MapMode::Write, submission));
        gpu.check()
    }

    /// A mapped slot. New slots are made up to [`SLOTS`], then it is the oldest one when its
    /// transfer has ended.
    async fn slot(&mut self) -> Result<GpuBuffer> {
        let oldest = if self.slots < SLOTS { None } else { self.under_way.pop_front() };
        match oldest {
            Some(oldest) => self.gpu.mapped(oldest).await,
            None => {
                self.slots += 1;
                self.gpu.upload_buffer(self.slot_bytes)
            }
        }
    }

    /// Waits until the device has packed all matrices, and looks for faults.
    ///
    /// Errors: a value, scale or offset that is NaN, infinite or beyond f16; a failed device.
    pub async fn finish(self, source: &dyn TensorSource) -> Result<()> {
        let begin = Instant::now();
        let faults: Vec<u32> = self.gpu.download(&self.faults).await?;
        let Times { bytes, copying, waiting } = self.times;
        let waiting = waiting + begin.elapsed();
        log::info!(
            "{bytes} bytes copied in {copying:.2?}, {waiting:.2?} spent waiting for the device"
        );
        match self.sent.iter().zip(faults).find(|(_, row)| *row != u32::MAX) {
            None => Ok(()),
            Some((sent, row)) => Err(sent.explain(source, row).await),
        }
    }
}

impl Sent {
    /// The error that packing on the host gives for a faulty row.
    async fn explain(&self, source: &dyn TensorSource, row: u32) -> Error {
        let mut ignore = |_| ();
        let shape = (self.rows, self.cols);
        let mut reader =
            MatrixReader::new(source, &self.name, self.dtype, shape, self.format, &mut ignore);
        let ranges = self.part_rows.iter().map(|&rows| ((), 0, rows));
        let pack =
            async |slice: Slice<'_, '_, ()>| slice.reader.pack(slice.row, slice.bytes).map(|_| ());
        if let Err(error) = for_each_slice(&mut reader, ranges, pack).await {
            return error;
        }
        Error::tensor(
            &self.name,
            format!("row {row}: the device found a value that is not finite, the host did not"),
        )
    }
}

/// Writes a header and rows to a mapped buffer.
fn fill(slot: &wgpu::Buffer, header: &[u32; 4], rows: &[u8]) -> Result<()> {
    let mut view =
        slot.get_mapped_range_mut(..).map_err(|error| Error::Device(one_line(&error)))?;
    let (mut head, rest) = view.slice(..).split_at(Repack::HEADER_BYTES);
    head.copy_from_slice(bytemuck::bytes_of(header));
    let (from, from_rest) = rows.as_chunks::<PIECE_BYTES>();
    let (to, mut to_rest) = rest.into_slice(..rows.len()).into_chunks::<PIECE_BYTES>();
    // The first access to a page of the file reads it. Several threads read several pages at once.
    let pieces: Vec<_> = to.into_iter().zip(from).collect();
    pieces
        .into_par_iter()
        .for_each(|(to, from)| wgpu::WriteOnly::<[u8]>::from(to).copy_from_slice(from));
    to_rest.copy_from_slice(from_rest);
    Ok(())
}
