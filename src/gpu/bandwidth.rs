//! Measures how fast the device reads: the read ceiling of reports, and whether a large cache
//! exists.

use web_time::Instant;

use crate::error::Result;
use crate::gpu::device::{gpu::Gpu, grid::StepSize, select::DeviceOptions};
use crate::gpu::kernels::{Kernel, ReadAll};

/// Larger than any cache.
const MOST_BYTES: u64 = 1 << 30;

/// With a smaller cache, prefetched weights would evict data that is needed sooner.
const PREFETCH_CACHE: u64 = 16 << 20;

impl Gpu {
    /// Opens an adapter with all the features and limits that kernels can use.
    ///
    /// Errors: no adapter, none that matches, an option that it cannot follow, a driver's refusal.
    pub async fn open(options: &DeviceOptions) -> Result<Gpu> {
        Self::open_with(options, |gpu| gpu.has_cache_of(PREFETCH_CACHE)).await
    }

    /// Bytes per second of a plain read of a buffer larger than the caches; the best of five.
    pub fn read_bandwidth(&self) -> Result<f64> {
        let facts = self.facts();
        let software = if facts.is_software() { MOST_BYTES >> 4 } else { MOST_BYTES };
        let bytes = facts.max_binding_bytes.min(facts.max_buffer_bytes).min(software);
        self.time_reads(bytes, 1, if facts.is_software() { 1 } else { 16 })
    }

    /// Whether repeated reads of `bytes` are much faster than reads from memory. `false` where the
    /// adapter's limits do not allow the measurement.
    fn has_cache_of(&self, bytes: u64) -> Result<bool> {
        const PASSES: u64 = 24;
        if bytes * PASSES > self.facts().max_binding_bytes.min(self.facts().max_buffer_bytes) {
            return Ok(false);
        }
        let again = self.time_reads(bytes, PASSES as usize, 2)?;
        let once = self.time_reads(bytes * PASSES, 1, 2)?;
        Ok(again > 1.3 * once)
    }

    /// Bytes per second of `repeats` dispatches that read a buffer `passes` times; the best of
    /// five.
    fn time_reads(&self, bytes: u64, passes: usize, repeats: usize) -> Result<f64> {
        let kernel = ReadAll { blocks: bytes as usize / ReadAll::BLOCK_BYTES, passes };
        let bytes = kernel.blocks * ReadAll::BLOCK_BYTES;
        let words = self.buffer("read ceiling", bytes as u64)?;
        let sums = self.buffer("read ceiling", 4 * (kernel.blocks * passes) as u64)?;
        let dispatch = self.dispatch(
            &kernel.source(self.target()),
            &[("words", &words), ("sums", &sums)],
            kernel.grid(self.target()),
        )?;
        let mut best = 0f64;
        // The first run warms up.
        for run in 0..6 {
            let mut encoder = self.device().create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..repeats).for_each(|_| dispatch.encode(&mut pass, StepSize::default()));
            drop(pass);
            let start = Instant::now();
            self.queue().submit([encoder.finish()]);
            self.wait()?;
            if run > 0 {
                best = best.max((repeats * passes * bytes) as f64 / start.elapsed().as_secs_f64());
            }
        }
        Ok(best)
    }
}
