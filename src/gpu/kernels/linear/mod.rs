//! Products of packed weights and activations.

pub mod coop;
pub mod gated;
pub mod products;
