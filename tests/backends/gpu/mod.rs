//! The wgpu backend.

mod batch;
mod contract;
mod demo;
mod load;
mod parity;
mod persistent;
