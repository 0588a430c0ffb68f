// 16 bytes of nibbles, those of weights 0..16 the low ones, as int4 has them: four weights from the
// low nibbles of a word, the next four above them.
fn nibble_words(bytes: vec4<u32>) -> vec4<u32> {
    let low = bytes & vec4<u32>(0x0f0f0f0fu);
    let high = (bytes >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    return vec4<u32>(low.xz | (low.yw << vec2<u32>(4u)), high.xz | (high.yw << vec2<u32>(4u)));
}
