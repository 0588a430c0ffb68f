//! The program from outside, and the build script's search for MLX.

mod bad_input;
mod bench;
mod convert;
mod convert_gguf;
mod eval;
mod hub;
mod hub_server;
mod inspect;
mod mlx;
mod mlx_build;
mod pull;
mod quantize;
mod quantize_job;
mod run;
#[cfg(feature = "server")]
mod serve;
mod support;
