//! The CPU backend.

mod contract;
mod parity;
