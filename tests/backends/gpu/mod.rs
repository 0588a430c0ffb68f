//! The wgpu backend.

mod batch;
mod contract;
mod demo;
mod experts;
mod load;
mod parity;
mod persistent;
