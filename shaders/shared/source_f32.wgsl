// Element i of a stored tensor.
fn value(i: u32) -> f32 {
    return bitcast<f32>(source[i]);
}
