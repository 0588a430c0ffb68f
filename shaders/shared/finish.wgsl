//! needs: constants SOFTCAP

// Some drivers' tanh overflows for large values, where it is 1 anyway.
fn finish(value: f32) -> f32 {
    if SOFTCAP > 0.0 {
        return SOFTCAP * tanh(clamp(value / SOFTCAP, -15.0, 15.0));
    }
    return value;
}
