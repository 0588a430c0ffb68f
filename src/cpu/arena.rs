//! Memory of weights: few large allocations, which Linux backs with huge pages.
//!
//! A token reads all weights once. With pages of 4 KiB, address translation limits that speed.

use bytes::BytesMut;

use crate::cpu::try_with_capacity;
use crate::error::Result;

/// A cache line.
const ALIGN: usize = 64;
/// Least bytes of an allocation. Unused bytes of zeroed memory cost nothing on Linux.
const CHUNK: usize = if cfg!(target_os = "linux") { 64 << 20 } else { 0 };

/// Divides allocations among matrices.
#[derive(Default)]
pub struct Arena {
    free: BytesMut,
}

impl Arena {
    /// `len` zeros, aligned to a cache line. Errors if they do not fit in memory; `what` is for the
    /// error.
    pub fn zeros(&mut self, what: &str, len: usize) -> Result<BytesMut> {
        let padded = len.div_ceil(ALIGN).saturating_mul(ALIGN);
        if self.free.len() < padded {
            let chunk = CHUNK.max(padded.saturating_add(ALIGN));
            // Reserved and freed for the error. Zeroed memory is provided on first use.
            try_with_capacity::<u8>(what, chunk)?;
            let mut memory = BytesMut::zeroed(chunk);
            advise_huge_pages(&mut memory);
            let unaligned = memory.as_ptr().align_offset(ALIGN);
            self.free = memory.split_off(unaligned.min(ALIGN));
        }
        let mut zeros = self.free.split_to(padded);
        zeros.truncate(len);
        Ok(zeros)
    }
}

/// Asks the system for huge pages, which it may refuse.
#[cfg(target_os = "linux")]
fn advise_huge_pages(memory: &mut [u8]) {
    const HUGE_PAGE: usize = 2 << 20;
    let first = memory.as_ptr().align_offset(HUGE_PAGE);
    let Some(pages) = memory.get_mut(first..) else { return };
    let len = pages.len() / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: the range is part of the allocation, and the advice leaves its content as it is.
    unsafe { libc::madvise(pages.as_mut_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_memory: &mut [u8]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_apart() {
        let mut arena = Arena::default();
        let lens = [1, 64, 100, CHUNK + 1, 7, CHUNK / 2, CHUNK / 2, 3];
        let mut parts: Vec<BytesMut> =
            lens.iter().map(|&len| arena.zeros("weights", len).unwrap()).collect();
        for (i, part) in parts.iter_mut().enumerate() {
            assert!(part.as_ptr().addr().is_multiple_of(ALIGN));
            assert!(part.iter().all(|&byte| byte == 0));
            part.fill(i as u8 + 1);
        }
        for (i, (part, len)) in parts.iter().zip(lens).enumerate() {
            assert!(part.len() == len && part.iter().all(|&byte| byte == i as u8 + 1));
        }
    }

    #[test]
    fn too_much_is_an_error() {
        let error = Arena::default().zeros("embed", usize::MAX / 4).unwrap_err().to_string();
        assert!(error.contains("no memory for embed"), "{error}");
    }
}
