// Q4_0 and Q4_1: a scale, an offset if OFFSET, then 32 nibbles: those of weights 0..16 are the low ones.

fn group_step(row_byte: u32, group: u32) -> u32 {
    let word = stored_word(row_byte + group * BLOCK_BYTES);
    return select(word & 0xffffu, word, OFFSET);
}

fn group_four(row_byte: u32, group: u32, four: u32) -> vec4<u32> {
    let bytes = stored_four(row_byte + group * BLOCK_BYTES + select(2u, 4u, OFFSET));
    let low = bytes & vec4<u32>(0x0f0f0f0fu);
    let high = (bytes >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    // Four weights from the low nibbles of a word, the next four above them.
    return vec4<u32>(low.xz | (low.yw << vec2<u32>(4u)), high.xz | (high.yw << vec2<u32>(4u)));
}
