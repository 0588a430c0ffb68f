// Cosine and sine of `turn` / 2^32 of a full rotation, to 3e-8.
// It uses Taylor series around the nearest quarter rotation.
// The cos and sin of drivers may have errors of 2^-11.
fn cos_sin(turn: u32) -> vec2<f32> {
    let quarter = (turn + 0x20000000u) >> 30u;
    let x = f32(bitcast<i32>(turn - (quarter << 30u))) * (6.283185307179586 / 4294967296.0);
    let xx = x * x;
    let c = 1.0
        + xx * (-1.0 / 2.0 + xx * (1.0 / 24.0 + xx * (-1.0 / 720.0 + xx * (1.0 / 40320.0))));
    let s = x * (1.0
        + xx * (-1.0 / 6.0 + xx * (1.0 / 120.0 + xx * (-1.0 / 5040.0 + xx * (1.0 / 362880.0)))));
    switch quarter & 3u {
        case 0u: { return vec2<f32>(c, s); }
        case 1u: { return vec2<f32>(-s, c); }
        case 2u: { return vec2<f32>(-c, -s); }
        default: { return vec2<f32>(s, -c); }
    }
}
