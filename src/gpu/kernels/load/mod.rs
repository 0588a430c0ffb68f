//! Kernels that run while weights are loaded or measured.

pub mod memory;
pub mod quantize_hqq;
pub mod repack;
