//! needs: weight_layout
// Scales and minima of 6 bits, whose factors eight groups share: four words, see PackFormat::Q4K.
alias ScaleUnit = vec4<u32>;

fn scale_of(row: u32, group: u32) -> vec2<f32> {
    let words = scales[scale_vec4(row, group / 8u)];
    let nibbles = words.yzw >> vec3<u32>(4u * (group % 8u));
    let scale = (nibbles.x & 15u) | ((nibbles.z << 4u) & 48u);
    let minimum = (nibbles.y & 15u) | ((nibbles.z << 2u) & 48u);
    // Small weights have subnormal factors: an adapter that takes these as zero, which WGSL allows,
    // would lose them.
    let factors = unpack2x16float(words.x);
    return vec2<f32>(factors.x * f32(scale), -factors.y * f32(minimum));
}
