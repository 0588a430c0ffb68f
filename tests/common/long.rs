//! Long runs: `tools/test.sh --long` sets the variable.

/// Whether every combination is tested rather than enough of them for every pair.
pub fn is_long() -> bool {
    std::env::var_os("GEMMA4_WGPU_LONG_TESTS").is_some()
}
