// Scales and minima of 6 bits, whose factors eight groups share: four words, see PackFormat::Q4K.
alias ScaleUnit = vec4<u32>;

fn scale_of(row: u32, group: u32) -> vec2<f32> {
    let words = scales[scale_four(row, group / 8u)];
    let nibbles = (words.yzw >> vec3<u32>(4u * (group % 8u))) & vec3<u32>(15u);
    let upper = (vec2<u32>(nibbles.z << 4u, nibbles.z << 2u)) & vec2<u32>(48u);
    return unpack2x16float(words.x) * vec2<f32>(nibbles.xy | upper) * vec2<f32>(1.0, -1.0);
}
