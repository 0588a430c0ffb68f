//! The wgpu backend against transformers in float32.

use crate::{common, golden_tests};
use gemma4_wgpu::gpu::KernelOptions;

golden_tests!(2e-2, common::gpu(KernelOptions::default()));
