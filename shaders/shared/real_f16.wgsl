//! needs: enables f16
// The type of matrix tiles. f16 ends at 65504: larger activations are held there rather than
// becoming infinite.
alias real = f16;
const REAL_MAX: f32 = 65504.0;
