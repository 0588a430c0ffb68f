// The tanh approximation of GELU (Hendrycks & Gimpel 2016).
// It uses (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), which needs no branches.
fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    // Far below zero, 1 + tanh is 0 in f32, and exp overflows.
    return select(x / (1.0 + exp(-2.0 * clamp(inner, -9.0, 40.0))), 0.0, inner < -9.0);
}
