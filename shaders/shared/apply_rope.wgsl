//! needs: vec8, rope_angle

// Rotary embedding of four dims in the first half of a head, and of their partners half a head
// later.
// It applies the head's norm and norm weights first.
fn apply_rope(values: Vec8, normed: f32, weights_at: u32, i4: u32, position: u32) -> Vec8 {
    let first = values.lo * normed * head_norms[weights_at + i4];
    let second = values.hi * normed * head_norms[weights_at + VEC8S + i4];
    // The u32 product drops whole rotations, so the angle is exact at any position.
    let turn = rope_frequencies[i4] * position;
    let x = cos_sin(turn.x);
    let y = cos_sin(turn.y);
    let z = cos_sin(turn.z);
    let w = cos_sin(turn.w);
    let c = vec4<f32>(x.x, y.x, z.x, w.x);
    let s = vec4<f32>(x.y, y.y, z.y, w.y);
    return Vec8(first * c - second * s, second * c + first * s);
}
