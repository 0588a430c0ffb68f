//! Every kernel against its CPU twin, in every variant that the adapter can run, checks on and off.

#[path = "kernels/attention.rs"]
mod attention;
#[allow(dead_code)] // the translation test uses the rest
#[path = "kernels/catalogue.rs"]
mod catalogue;
#[path = "kernels/chain.rs"]
mod chain;
#[path = "kernels/elementwise.rs"]
mod elementwise;
#[path = "kernels/emit.rs"]
mod emit;
#[path = "kernels/emulated.rs"]
mod emulated;
#[path = "kernels/gated.rs"]
mod gated;
#[path = "kernels/harness.rs"]
mod harness;
#[path = "kernels/linear.rs"]
mod linear;
#[path = "kernels/norm.rs"]
mod norm;
#[path = "kernels/per_layer.rs"]
mod per_layer;
#[path = "kernels/quantize.rs"]
mod quantize;
#[path = "kernels/repack.rs"]
mod repack;
#[path = "kernels/sample.rs"]
mod sample;
