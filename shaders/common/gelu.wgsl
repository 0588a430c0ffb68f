// The tanh approximation of GELU (Hendrycks & Gimpel 2016).
fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    // tanh overflows on some drivers far from zero, where it is 1 anyway.
    return 0.5 * x * (1.0 + tanh(clamp(inner, -15.0, 15.0)));
}
