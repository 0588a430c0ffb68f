// Q8_0: a scale, then 32 bytes.

fn group_step(row_byte: u32, group: u32) -> u32 {
    return stored_word(row_byte + group * BLOCK_BYTES) & 0xffffu;
}

fn group_four(row_byte: u32, group: u32, four: u32) -> vec4<u32> {
    return stored_four(row_byte + group * BLOCK_BYTES + 2u + 16u * four);
}
