//! The HTTP server with the embedded model on the CPU backend.

mod answers;
mod bad_input;
mod connections;
mod dialects;
mod endpoints;
mod script;
mod support;
