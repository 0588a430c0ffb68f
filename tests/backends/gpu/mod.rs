//! The wgpu backend.

mod contract;
mod demo;
mod load;
mod parity;
mod persistent;
