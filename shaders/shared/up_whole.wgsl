//! needs: constants IN_STRIDE, N
// Of gelu_mul: up where gate is.

fn up_of(row: u32, col: u32) -> f32 {
    return gate_up[row * IN_STRIDE + N + col];
}
