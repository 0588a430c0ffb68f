//! Weights packed by the host and copied to the device.

use crate::error::Result;
use crate::gpu::device::gpu::Gpu;
use crate::gpu::weights::matrix::{GpuMatrix, MatrixPart, tile};
use crate::gpu::weights::slices::Slice;

/// Bytes that the queue gets before it is flushed. This bounds the host copies that wait for
/// transfer.
const FLUSH_BYTES: u64 = 64 << 20;

/// Packs slices and copies them.
pub(super) struct HostSink {
    gpu: Gpu,
    unflushed: u64,
}

impl HostSink {
    pub fn new(gpu: Gpu) -> Self {
        HostSink { gpu, unflushed: 0 }
    }

    /// Packs a slice of a matrix and writes it.
    ///
    /// Errors: those of packing, a failed device.
    pub async fn write(
        &mut self,
        matrix: &GpuMatrix,
        slice: Slice<'_, '_, &MatrixPart>,
    ) -> Result<()> {
        let (format, cols) = (matrix.format, matrix.cols);
        let packed = slice.reader.pack(slice.row, slice.bytes)?;
        let sides = [
            (&slice.part.data, packed.data, format.data_words(cols), 4),
            (&slice.part.scales, packed.scales, format.scale_words(cols), format.scale_unit()),
        ];
        for (buffer, words, row_words, unit) in sides {
            let words = if matrix.interleaved16 { tile(&words, row_words, unit) } else { words };
            self.copy(buffer, 4 * (slice.part_row * row_words) as u64, &words).await?;
        }
        Ok(())
    }

    async fn copy(&mut self, buffer: &wgpu::Buffer, offset: u64, words: &[u32]) -> Result<()> {
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

    /// Waits until the device has all written slices.
    pub async fn flush(&mut self) -> Result<()> {
        self.unflushed = 0;
        self.gpu.queue().submit([]);
        self.gpu.finished().await
    }
}
