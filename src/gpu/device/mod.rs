//! A GPU, without a model: its adapter's facts, buffers, pipelines and dispatches.

pub(in crate::gpu) mod adapter;
pub(in crate::gpu) mod buffers;
pub(in crate::gpu) mod dispatch;
pub(in crate::gpu) mod faults;
pub(in crate::gpu) mod gpu;
pub(in crate::gpu) mod grid;
pub(in crate::gpu) mod kernel_options;
pub(in crate::gpu) mod pipeline_cache;
pub(in crate::gpu) mod pipelines;
pub(in crate::gpu) mod profile;
pub(in crate::gpu) mod select;
pub(in crate::gpu) mod source;
pub(in crate::gpu) mod tuning;
pub(in crate::gpu) mod variant;
