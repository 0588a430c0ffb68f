//! Every kernel against its CPU twin, in every variant that the adapter can run.
//!
//! [`translation`] needs no adapter, as it runs naga's translators on all kernels.

mod attention;
mod catalogue;
mod combinations;
mod coop_rows;
mod elementwise;
mod embed;
mod emulated;
mod epilogue;
mod experts;
mod gated;
mod harness;
mod linear;
#[path = "../common/long.rs"]
mod long;
mod norm;
mod per_layer;
mod persistent_layer;
mod quantize;
mod repack;
mod sample;
mod translation;
mod weights;
