//! A checkpoint's weights as matrices on the device.

use crate::error::Result;
use crate::gpu::device::{buffers::GpuBuffer, gpu::Gpu};
use crate::gpu::weights::fused::FusedAllocator;
use crate::gpu::weights::host::HostSink;
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::weights::in_place::InPlaceSink;
use crate::gpu::weights::matrix::{GpuMatrix, MatrixMemory};
use crate::gpu::weights::repack::RepackSink;
use crate::gpu::weights::slices::for_each_slice;
use crate::model::matrix_reader::MatrixReader;
use crate::model::source::TensorSource;
use crate::model::weights::{PlannedTensor, WeightStore};

/// Copies weights to the device while they are read.
pub(in crate::gpu) struct GpuStore {
    gpu: Gpu,
    bytes: u64,
    fused: FusedAllocator,
    host: HostSink,
    /// For matrices that the device packs.
    repack: Option<RepackSink>,
    /// For all matrices if the device shares the host's memory. Not in browsers, where a buffer
    /// belongs to one thread.
    #[cfg(not(target_arch = "wasm32"))]
    in_place: Option<InPlaceSink>,
}

impl GpuStore {
    /// A store for these tensors.
    ///
    /// Errors: no memory for the staging buffers.
    pub fn new(gpu: Gpu, tensors: &[PlannedTensor]) -> Result<Self> {
        let memory = if gpu.tuning().inplace { MatrixMemory::Mapped } else { MatrixMemory::Device };
        Ok(GpuStore {
            bytes: 0,
            fused: FusedAllocator::new(&gpu, tensors, memory),
            host: HostSink::new(gpu.clone()),
            repack: RepackSink::new(&gpu, tensors)?,
            #[cfg(not(target_arch = "wasm32"))]
            in_place: gpu.tuning().inplace.then(InPlaceSink::default),
            gpu,
        })
    }

    /// Writes all rows of a reader to a matrix, from its row `first` on.
    async fn write(
        &mut self,
        reader: &mut MatrixReader<'_>,
        matrix: &GpuMatrix,
        first: usize,
    ) -> Result<()> {
        let ranges = matrix.row_ranges(first, reader.rows);
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(sink) = &mut self.in_place {
            return for_each_slice(reader, ranges, async |slice| sink.write(matrix, slice)).await;
        }
        match &mut self.repack {
            Some(sink) if sink.takes(reader) => {
                for_each_slice(reader, ranges, async |slice| sink.write(matrix, slice).await)
                    .await?;
                sink.end(reader, matrix, first);
                Ok(())
            }
            _ => {
                let sink = &mut self.host;
                for_each_slice(reader, ranges, async |slice| sink.write(matrix, slice).await).await
            }
        }
    }

    /// Waits until all weights are on the device and checked. Returns their bytes.
    ///
    /// Errors: see [`RepackSink::finish`].
    pub async fn finish(mut self, source: &dyn TensorSource) -> Result<u64> {
        if let Some(sink) = self.repack.take() {
            sink.finish(source).await?;
        }
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(sink) = &self.in_place {
            sink.report();
        }
        self.host.flush().await?;
        Ok(self.bytes)
    }
}

impl WeightStore for GpuStore {
    type Matrix = GpuMatrix;
    type Vector = GpuBuffer;

    async fn matrix(&mut self, mut reader: MatrixReader<'_>) -> Result<GpuMatrix> {
        let (matrix, first) = self.fused.begin(&self.gpu, &reader)?;
        self.write(&mut reader, &matrix, first).await?;
        self.bytes += reader.rows as u64 * matrix.format.row_bytes(matrix.cols) as u64;
        Ok(self.fused.end(matrix, first + reader.rows))
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<GpuBuffer> {
        self.bytes += 4 * values.len() as u64;
        self.gpu.buffer_of(name, bytemuck::cast_slice(&values))
    }
}
