//! Random weights, made on the device.

use std::cell::Cell;

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu, grid::StepSize};
use crate::gpu::kernels::{Fill, Kernel};
use crate::gpu::weights::fused::FusedAllocator;
use crate::gpu::weights::matrix::{GpuMatrix, MatrixMemory};
use crate::model::matrix_reader::MatrixReader;
use crate::model::weights::{PlannedTensor, WeightStore};
use crate::quant::PackFormat;

/// Makes matrices on the device instead of reading them.
pub(in crate::gpu) struct SyntheticStore {
    pub gpu: Gpu,
    pub bytes: u64,
    fused: FusedAllocator,
    seed: Cell<u32>,
}

impl SyntheticStore {
    /// A store for these tensors.
    pub fn new(gpu: Gpu, tensors: &[PlannedTensor], seed: u32) -> Self {
        let fused = FusedAllocator::new(&gpu, tensors, MatrixMemory::Device);
        SyntheticStore { gpu, bytes: 0, fused, seed: Cell::new(seed) }
    }

    fn fill(&self, buffer: &GpuBuffer, random: bool, value: u32) -> Result<()> {
        let kernel = Fill { random };
        let words = self.gpu.uniform("fill", [(buffer.size() / 4) as u32, value, 0, 0])?;
        let source = kernel.source(self.gpu.target());
        let dispatch = self.gpu.dispatch(
            &source,
            &[("words", buffer), ("fill", &words)],
            kernel.grid(self.gpu.target()),
        )?;
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        dispatch.encode(&mut encoder.begin_compute_pass(&Default::default()), StepSize::default());
        self.gpu.queue().submit([encoder.finish()]);
        Ok(())
    }
}

impl WeightStore for SyntheticStore {
    type Matrix = GpuMatrix;
    type Vector = GpuBuffer;

    async fn matrix(&mut self, reader: MatrixReader<'_>) -> Result<GpuMatrix> {
        let (matrix, first) = self.fused.begin(&self.gpu, &reader)?;
        self.bytes += reader.rows as u64 * matrix.format.row_bytes(matrix.cols) as u64;
        let matrix = self.fused.end(matrix, first + reader.rows);
        // With this scale, uniform quants make rows of length one. So activations keep their size.
        let deviation = match matrix.format {
            PackFormat::Int { bits: 4, .. } => 4.6,
            PackFormat::Int { bits: 6, .. } => 18.5,
            _ => 73.9,
        };
        let scale =
            half::f16::from_f32(1.0 / (deviation * (matrix.cols as f32).sqrt())).to_bits() as u32;
        for part in &matrix.parts {
            self.seed.set(self.seed.get().wrapping_add(1));
            self.fill(&part.data, true, self.seed.get())?;
            self.fill(&part.scales, false, scale | scale << 16)?;
        }
        self.gpu.wait()?;
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<GpuBuffer> {
        self.bytes += 4 * values.len() as u64;
        self.gpu.buffer_of(name, bytemuck::cast_slice(&values))
    }
}
