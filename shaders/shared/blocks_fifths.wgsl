//! needs: fifth_words, nibble_words, plain_step, stored_rows, weight_layout; constants BLOCK_BYTES,
//! OFFSET

// Q5_0 and Q5_1: a scale, an offset if OFFSET, 32 fifth bits, 32 nibbles.
// Formats without an offset store each weight plus 16.
// With the fifth bit inverted, such a weight is a number in two's complement.

// Every fourth bit, packed.
fn fourth_bits(bits: u32) -> u32 {
    var found = bits & 0x11111111u;
    found = (found | (found >> 3u)) & 0x03030303u;
    found = (found | (found >> 6u)) & 0x000f000fu;
    return (found | (found >> 12u)) & 0xffu;
}

fn write_group(unit: Unit, group: u32) {
    let at = unit.byte + group * BLOCK_BYTES + select(2u, 4u, OFFSET);
    data[data_vec4(unit.place, group)] = nibble_words(stored_vec4(at + 4u));
    let bits = stored_word(at) ^ select(0xffffffffu, 0u, OFFSET);
    var word = 0u;
    for (var byte = 0u; byte < 4u; byte++) {
        word |= fourth_bits(bits >> byte) << (8u * byte);
    }
    write_fifths(unit, group, word);
}
