//! needs: weight_layout

// 6-bit scales and minima, with factors that eight groups share: four words, see PackFormat::Q4K.
alias ScaleUnit = vec4<u32>;

fn load_scale(row: u32, group: u32) -> ScaleUnit {
    return scales[scale_vec4(row, group / 8u)];
}

fn scale_in(words: ScaleUnit, group: u32) -> vec2<f32> {
    let nibbles = words.yzw >> vec3<u32>(4u * (group % 8u));
    let scale = (nibbles.x & 15u) | ((nibbles.z << 4u) & 48u);
    let minimum = (nibbles.y & 15u) | ((nibbles.z << 2u) & 48u);
    // Small weights have subnormal factors.
    // WGSL lets devices flush these to zero, and then the weights would be lost.
    let factors = unpack2x16float(words.x);
    return vec2<f32>(factors.x * f32(scale), -factors.y * f32(minimum));
}

fn scale_of(row: u32, group: u32) -> vec2<f32> {
    return scale_in(load_scale(row, group), group);
}
