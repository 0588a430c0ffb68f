//! The library for browsers, which a page's worker calls. Programs use the interface in `web/js`.
#![cfg(target_arch = "wasm32")]

mod checksum;
mod cpu;
mod engine;
mod files;
mod options;
mod serve;

pub use checksum::Checksum;
pub use engine::Engine;

use wasm_bindgen::prelude::wasm_bindgen;

/// Makes a panic readable before it ends the worker.
#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}
