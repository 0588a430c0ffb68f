//! needs: half_bits

// Element i of a stored tensor.
fn value(i: u32) -> f32 {
    return from_half((source[i / 2u] >> (16u * (i % 2u))) & 0xffffu);
}
