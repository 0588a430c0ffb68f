//! The real checkpoint that tests run on: Gemma 3 270M, GGUF Q4_K_M.

use std::{
    env::{home_dir, var_os},
    path::PathBuf,
};

/// The path of the model. `tools/fetch-test-model.sh` downloads the model to this place.
/// GEMMA4_WGPU_TEST_MODEL can name another one. Fails if the model is missing.
pub fn path() -> PathBuf {
    let cached = || {
        let cache = var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| home_dir().expect("no home directory").join(".cache"));
        cache.join("gemma4-wgpu/gemma-3-270m-q4_k_m.gguf")
    };
    let path = var_os("GEMMA4_WGPU_TEST_MODEL").map_or_else(cached, PathBuf::from);
    assert!(path.is_file(), "{} is missing: run tools/fetch-test-model.sh", path.display());
    path
}
