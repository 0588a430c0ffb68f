//! Products of packed weights and activations.

pub mod coop;
pub mod coop_rows;
pub mod gated;
pub mod products;
