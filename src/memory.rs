//! The memory that a model will take on a device, computed before loading.

use serde::Serialize;

use crate::Result;

/// Bytes that a model and a context take on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Positions of each sequence.
    pub context_length: usize,
    /// Packed matrices, norms and tables.
    pub weight_bytes: u64,
    /// Keys and values of the layers with sliding attention.
    pub kv_sliding_bytes: u64,
    /// Keys and values of the layers with full attention.
    pub kv_full_bytes: u64,
    /// Activations and logits of the largest step, or the temporary buffers of loading if these are
    /// larger.
    pub scratch_bytes: u64,
    /// The largest single buffer whose size depends on the context or the number of sequences.
    #[serde(skip)]
    pub largest_buffer: u64,
    /// The largest buffer that the device allows.
    #[serde(skip)]
    pub buffer_limit: u64,
}

impl MemoryPlan {
    pub fn total_bytes(&self) -> u64 {
        [self.weight_bytes, self.kv_sliding_bytes, self.kv_full_bytes, self.scratch_bytes]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Whether it fits in `free` bytes (`None`: unknown) and within the device's limit of a buffer.
    pub fn fits(&self, free: Option<u64>) -> bool {
        self.largest_buffer <= self.buffer_limit
            && free.is_none_or(|free| self.total_bytes() <= free)
    }
}

/// The largest count up to `most` whose plan fits in `free` bytes: of positions or sequences.
/// `None` if not even one fits.
///
/// Errors: those of `plan`, which makes the plan for a count.
pub fn largest_that_fits(
    most: usize,
    free: Option<u64>,
    mut plan: impl FnMut(usize) -> Result<MemoryPlan>,
) -> Result<Option<usize>> {
    // Counts up to `fitting` fit, and those from `beyond` on do not.
    let (mut fitting, mut beyond) = (0, most.saturating_add(1));
    while beyond - fitting > 1 {
        let middle = fitting + (beyond - fitting) / 2;
        match plan(middle)?.fits(free) {
            true => fitting = middle,
            false => beyond = middle,
        }
    }
    Ok((fitting > 0).then_some(fitting))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(context_length: usize) -> MemoryPlan {
        MemoryPlan {
            context_length,
            weight_bytes: 1000,
            kv_sliding_bytes: 50,
            kv_full_bytes: 8u64.saturating_mul(context_length as u64),
            scratch_bytes: 150,
            largest_buffer: 4u64.saturating_mul(context_length as u64),
            buffer_limit: 4000,
        }
    }

    #[test]
    fn the_largest_context_is_found() {
        let largest =
            |most, free| largest_that_fits(most, free, |context| Ok(plan(context))).unwrap();
        assert_eq!(largest(5000, Some(1200 + 8 * 77)), Some(77));
        assert_eq!(largest(5000, Some(1200 + 8 * 77 + 7)), Some(77));
        assert_eq!(largest(5000, Some(1207)), None);
        assert_eq!(largest(60, Some(1200 + 8 * 77)), Some(60));
        // The limit of one buffer applies even if memory is unlimited.
        assert_eq!(largest(5000, None), Some(1000));
        assert_eq!(largest(usize::MAX, Some(u64::MAX)), Some(1000));
    }
}
