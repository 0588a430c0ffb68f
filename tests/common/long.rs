//! Long runs: `tools/test.sh --long` sets the variable.

/// Whether to test every combination. Otherwise every pair of aspects occurs in some test.
pub fn is_long() -> bool {
    std::env::var_os("GEMMA4_WGPU_LONG_TESTS").is_some()
}
