//! The HTTP server with the embedded model on the CPU backend.

mod answers;
mod bad_input;
mod connections;
mod constrained;
mod dialects;
mod endpoints;
#[path = "../common/random_model.rs"]
#[allow(dead_code)]
mod random_model;
mod script;
mod support;
