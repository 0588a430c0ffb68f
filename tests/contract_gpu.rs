//! The wgpu backend keeps the promises of [`Backend`], in every variant of its kernels that the
//! adapter can run.

mod common;

use common::{EXACT_KERNELS, gpu};
use gemma4_wgpu::gpu::KernelOptions;

/// Tokens one by one run other kernels than many at once: sums come in another order, and a value
/// on the edge between two f16 may go into the cache as either.
const ROUNDING: f32 = 3e-3;

contract_tests!(ROUNDING, gpu(EXACT_KERNELS), "wgpu");

/// Workgroup memory in place of subgroups, checks on.
mod plainest {
    use super::*;

    const OFF: Option<bool> = Some(false);
    const PLAINEST: KernelOptions = KernelOptions {
        subgroups: OFF,
        f16: OFF,
        dp4a: OFF,
        coop: OFF,
        wide: OFF,
        lanes: OFF,
        prefetch: OFF,
        checks: Some(true),
    };

    contract_tests!(ROUNDING, gpu(PLAINEST), "wgpu");
}
