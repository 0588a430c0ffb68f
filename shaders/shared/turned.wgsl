//! needs: octet, rotation
// Rotary embedding of four dims of a normed head's first half and the four that turn with them,
// after the head's norm weights.
fn turned(values: Octet, normed: f32, weights_at: u32, four: u32, position: u32) -> Octet {
    let first = values.lo * normed * head_norms[weights_at + four];
    let second = values.hi * normed * head_norms[weights_at + OCTETS + four];
    // The product wraps at whole turns, so that the angle is exact at any position.
    let turn = turns[four] * position;
    let x = cos_sin(turn.x);
    let y = cos_sin(turn.y);
    let z = cos_sin(turn.z);
    let w = cos_sin(turn.w);
    let c = vec4<f32>(x.x, y.x, z.x, w.x);
    let s = vec4<f32>(x.y, y.y, z.y, w.y);
    return Octet(first * c - second * s, second * c + first * s);
}
