//! needs: nibble_words, plain_step, stored_rows, weight_layout; constants BLOCK_BYTES, OFFSET

// Q4_0, Q4_1 and IQ4_NL: a scale, an offset if OFFSET, then 32 nibbles.

fn write_group(unit: Unit, group: u32) {
    let bytes = stored_vec4(unit.byte + group * BLOCK_BYTES + select(2u, 4u, OFFSET));
    data[data_vec4(unit.place, group)] = nibble_words(bytes);
}
