// Element i of a stored tensor.
fn value(i: u32) -> f32 {
    return bitcast<f32>((source[i / 2u] >> (16u * (i % 2u))) << 16u);
}
