//! The wgpu backend against transformers in float32.

mod common;

use gemma4_wgpu::gpu::KernelOptions;

golden_tests!(2e-2, common::gpu(KernelOptions::default()));
