//! Keys, values and scaled dot-product attention.

pub mod coop;
pub mod sdpa;
pub mod split;
