//! needs: constants IN_STRIDE, N

// `up_of` for gelu_mul, where up follows gate in each row.

fn up_of(row: u32, col: u32) -> f32 {
    return gate_up[row * IN_STRIDE + N + col];
}
