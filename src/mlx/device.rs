//! Facts about MLX and its device.

use std::ffi::{CStr, c_char};

use serde::Serialize;

use crate::error::Result;
use crate::mlx::{ffi, worker};

/// Bytes of freed arrays that MLX may keep for reuse. They suffice for a step and are too few to
/// displace a model.
const CACHE_LIMIT: u64 = 1 << 30;

/// MLX and its device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// `0.32.4`
    pub version: String,
    /// `Apple M4 Max`, or `CPU`.
    pub device: String,
    /// Whether the device is a GPU, through Metal.
    pub metal: bool,
    /// Bytes that MLX considers safe to use.
    pub memory_limit: u64,
}

/// Loads MLX and reads its facts. The first call sets MLX's limits.
///
/// Errors: MLX is missing, or differs from that of the build.
pub fn facts() -> Result<Facts> {
    worker::call(|| {
        let shim = ffi::shim()?;
        let (name, metal) = device(shim, c"device_name")?;
        if metal {
            let working_set =
                device(shim, c"max_recommended_working_set_size")?.0.parse().unwrap_or(0);
            // SAFETY: plain numbers. macOS before 15 wires no memory, which costs time but is no
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
    // SAFETY: the shim writes at most the number of bytes that is passed, the last one a zero.
    let (kind, text) = unsafe {
        let kind = (shim.device)(key.as_ptr(), text.as_mut_ptr(), text.len());
        (kind, CStr::from_ptr(text.as_ptr()))
    };
    match kind {
        -1 => Err(ffi::failure(shim)),
        kind => Ok((text.to_string_lossy().into_owned(), kind == 1)),
    }
}

/// Bytes that MLX has allocated for all backends of the process. 0 without MLX.
pub fn active_bytes() -> u64 {
    // SAFETY: reads a counter without arguments, which any thread may do.
    ffi::shim().map_or(0, |shim| unsafe { (shim.active_memory)() })
}

/// Most bytes that MLX has allocated since the program's start or [`reset_peak`]. 0 without MLX.
pub fn peak_bytes() -> u64 {
    // SAFETY: as above.
    ffi::shim().map_or(0, |shim| unsafe { (shim.peak_memory)() })
}

/// Resets [`peak_bytes`].
pub fn reset_peak() -> Result<()> {
    let shim = ffi::shim()?;
    // SAFETY: as above.
    match unsafe { (shim.reset_peak_memory)() } {
        0 => Ok(()),
        _ => Err(ffi::failure(shim)),
    }
}
