//! The way of weights from a checkpoint into matrices on the device.

#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::weights::in_place::InPlace;
use crate::{
    error::Result,
    gpu::{
        device::{buffers::GpuBuffer, gpu::Gpu},
        weights::{
            fused::FusedAllocator,
            matrix::{GpuMatrix, MatrixMemory, tile},
            upload::Uploads,
        },
    },
    model::{
        source::TensorSource,
        weights::{MatrixReader, PlannedTensor, WeightStore},
    },
};

/// Bytes handed to the queue before it is flushed: bounds the host copies that wait for transfer.
const FLUSH_BYTES: u64 = 64 << 20;

/// Uploads weights as they are read.
pub(in crate::gpu) struct GpuStore {
    gpu: Gpu,
    bytes: u64,
    unflushed: u64,
    fused: FusedAllocator,
    /// For what the device lays out.
    uploads: Option<Uploads>,
    /// For all matrices, where the device's memory is the host's. A browser's buffers belong to one
    /// thread.
    #[cfg(not(target_arch = "wasm32"))]
    in_place: Option<InPlace>,
}

impl GpuStore {
    /// A store for these tensors.
    ///
    /// Errors: no memory for the buffers that they pass through.
    pub fn new(gpu: Gpu, tensors: &[PlannedTensor]) -> Result<Self> {
        let uploads = Uploads::new(&gpu, tensors)?;
        let memory = if gpu.tuning().inplace { MatrixMemory::Mapped } else { MatrixMemory::Device };
        let fused = FusedAllocator::new(&gpu, tensors, memory);
        #[cfg(not(target_arch = "wasm32"))]
        let in_place = gpu.tuning().inplace.then(InPlace::default);
        Ok(GpuStore {
            gpu,
            bytes: 0,
            unflushed: 0,
            fused,
            uploads,
            #[cfg(not(target_arch = "wasm32"))]
            in_place,
        })
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
    async fn pack(
        &mut self,
        reader: &mut MatrixReader<'_>,
        matrix: &GpuMatrix,
        first: usize,
    ) -> Result<()> {
        let (data_words, scale_words) =
            (matrix.format.data_words(matrix.cols), matrix.format.scale_words(matrix.cols));
        for (part, first, rows) in matrix.row_ranges(first, reader.rows) {
            let mut row = first;
            while row < first + rows {
                let Some((_, packed)) = reader.next(first + rows - row).await? else { break };
                let (data, scales) = match matrix.tiled {
                    true => (
                        tile(&packed.data, data_words, 4),
                        tile(&packed.scales, scale_words, matrix.format.scale_unit()),
                    ),
                    false => (packed.data, packed.scales),
                };
                self.write(&part.data, 4 * (row * data_words) as u64, &data).await?;
                self.write(&part.scales, 4 * (row * scale_words) as u64, &scales).await?;
                row += packed.rows;
            }
        }
        Ok(())
    }

    /// Brings all rows of a reader to a matrix, from its row `first` on.
    async fn fill(
        &mut self,
        reader: &mut MatrixReader<'_>,
        matrix: &GpuMatrix,
        first: usize,
    ) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(in_place) = &mut self.in_place {
            return in_place.write(reader, matrix, first).await;
        }
        match &mut self.uploads {
            Some(uploads) if uploads.takes(reader) => uploads.send(reader, matrix, first).await,
            _ => self.pack(reader, matrix, first).await,
        }
    }

    /// Waits until all weights lie on the device as they should. Returns their bytes.
    ///
    /// Errors: see [`Uploads::finish`].
    pub async fn finish(mut self, source: &dyn TensorSource) -> Result<u64> {
        if let Some(uploads) = self.uploads.take() {
            uploads.finish(source).await?;
        }
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(in_place) = &self.in_place {
            in_place.report();
        }
        self.flush().await?;
        Ok(self.bytes)
    }
}

impl WeightStore for GpuStore {
    type Matrix = GpuMatrix;
    type Vector = GpuBuffer;

    async fn matrix(&mut self, mut reader: MatrixReader<'_>) -> Result<GpuMatrix> {
        let (matrix, first) = self.fused.begin(&self.gpu, &reader)?;
        self.fill(&mut reader, &matrix, first).await?;
        self.bytes += reader.rows as u64 * matrix.format.row_bytes(matrix.cols) as u64;
        Ok(self.fused.end(matrix, first + reader.rows))
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<GpuBuffer> {
        self.bytes += 4 * values.len() as u64;
        self.gpu.buffer_of(name, bytemuck::cast_slice(&values))
    }
}
