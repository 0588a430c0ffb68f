// Converts 16 bytes of nibbles to the order of int4. The low nibbles are weights 0..16.
// A word of int4 has four weights in the low nibbles and the next four in the high nibbles.
fn nibble_words(bytes: vec4<u32>) -> vec4<u32> {
    let low = bytes & vec4<u32>(0x0f0f0f0fu);
    let high = (bytes >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    return vec4<u32>(low.xz | (low.yw << vec2<u32>(4u)), high.xz | (high.yw << vec2<u32>(4u)));
}
