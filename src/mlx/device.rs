//! What MLX says of itself and its device.

use std::ffi::{CStr, c_char};

use serde::Serialize;

use crate::error::Result;
use crate::mlx::{ffi, worker};

/// Bytes of freed arrays that MLX may keep to use again: enough for a step's, less than would crowd
/// a model out.
const CACHE_LIMIT: u64 = 1 << 30;

/// MLX and the device that it computes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// `0.32.4`
    pub version: String,
    /// `Apple M4 Max`, or `CPU`.
    pub device: String,
    /// Whether the device is a GPU, through Metal.
    pub metal: bool,
    /// Bytes that MLX thinks fit to hold.
    pub memory_limit: u64,
}

/// Loads MLX and asks it. The first call sets MLX's limits.
///
/// Errors: MLX is missing, or not the one that the program was built with.
pub fn facts() -> Result<Facts> {
    worker::call(|| {
        let shim = ffi::shim()?;
        let (name, metal) = device(shim, c"device_name")?;
        if metal {
            let working_set =
                device(shim, c"max_recommended_working_set_size")?.0.parse().unwrap_or(0);
            // SAFETY: plain numbers. macOS before 15 wires nothing, which costs time and is no
            // error.
            unsafe { ((shim.set_wired_limit)(working_set), (shim.set_cache_limit)(CACHE_LIMIT)) };
        }
        // SAFETY: the string lives as long as the library.
        let version = unsafe { CStr::from_ptr((shim.version)()) }.to_string_lossy().into_owned();
        let device = if metal && !name.is_empty() { name } else { "CPU".into() };
        // SAFETY: no arguments.
        Ok(Facts { version, device, metal, memory_limit: unsafe { (shim.memory_limit)() } })
    })
}

/// A fact of the default device, and whether that is a GPU.
fn device(shim: &ffi::Shim, key: &CStr) -> Result<(String, bool)> {
    let mut text = [0 as c_char; 256];
    // SAFETY: the shim writes at most as many bytes as are told, the last a zero.
    let (kind, text) = unsafe {
        let kind = (shim.device)(key.as_ptr(), text.as_mut_ptr(), text.len());
        (kind, CStr::from_ptr(text.as_ptr()))
    };
    match kind {
        -1 => Err(ffi::failure(shim)),
        kind => Ok((text.to_string_lossy().into_owned(), kind == 1)),
    }
}

/// Bytes that MLX holds, of all backends of the process; 0 without MLX.
pub fn active_bytes() -> u64 {
    // SAFETY: a question without arguments, to a counter that any thread may read.
    ffi::shim().map_or(0, |shim| unsafe { (shim.active_memory)() })
}

/// Most bytes that MLX has held since the program began or [`reset_peak`]; 0 without MLX.
pub fn peak_bytes() -> u64 {
    // SAFETY: as above.
    ffi::shim().map_or(0, |shim| unsafe { (shim.peak_memory)() })
}

/// Forgets what [`peak_bytes`] was.
pub fn reset_peak() -> Result<()> {
    let shim = ffi::shim()?;
    // SAFETY: as above.
    match unsafe { (shim.reset_peak_memory)() } {
        0 => Ok(()),
        _ => Err(ffi::failure(shim)),
    }
}
