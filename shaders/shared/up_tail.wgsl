//! needs: constants IN_STRIDE, N, TAIL_COLS, TAIL_PARTS, TAIL_STRIDE

// `up_of` for gelu_mul, where up follows gate in each row.
// The last columns of up are sums of parts in another buffer.

@group(0) @binding(1) var<storage, read> tail: array<f32>; // [TAIL_PARTS, rows, TAIL_COLS]

fn up_of(row: u32, col: u32) -> f32 {
    if col < N - TAIL_COLS {
        return gate_up[row * IN_STRIDE + N + col];
    }
    let at = row * TAIL_COLS + col - (N - TAIL_COLS);
    var sum = 0.0;
    for (var part = 0u; part < TAIL_PARTS; part++) {
        sum += tail[part * TAIL_STRIDE + at];
    }
    return sum;
}
