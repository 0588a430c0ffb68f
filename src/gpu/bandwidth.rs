//! How fast the device reads: the ceiling that weight bandwidth is quoted against.

use web_time::Instant;

use super::{
    Gpu, StepSize,
    kernels::{Kernel, ReadAll},
};
use crate::Result;

/// Larger than any cache.
const MOST_BYTES: u64 = 1 << 30;

impl Gpu {
    /// Bytes per second of a plain read of a buffer larger than the caches; the best of five.
    pub fn read_bandwidth(&self) -> Result<f64> {
        let facts = self.facts();
        let software = if facts.is_software() { MOST_BYTES >> 4 } else { MOST_BYTES };
        let blocks = facts.max_binding_bytes.min(facts.max_buffer_bytes).min(software) as usize / ReadAll::BLOCK_BYTES;
        let kernel = ReadAll { blocks };
        let words = self.buffer("read ceiling", (blocks * ReadAll::BLOCK_BYTES) as u64)?;
        let sums = self.buffer("read ceiling", 4 * blocks as u64)?;
        let dispatch = self.dispatch(&kernel.source(self.variant()), &[&words, &sums], kernel.grid(self.variant()))?;
        let repeats = if facts.is_software() { 1 } else { 16 };
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
                best = best.max((repeats * blocks * ReadAll::BLOCK_BYTES) as f64 / start.elapsed().as_secs_f64());
            }
        }
        Ok(best)
    }
}
