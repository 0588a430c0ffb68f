//! needs: enables f16

// The type of matrix tiles. f16 ends at 65504, so larger activations are clamped.
// Otherwise they would become infinite.
alias real = f16;
const REAL_MAX: f32 = 65504.0;
