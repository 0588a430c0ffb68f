//! needs: half_bits, nibble_words, stored_rows, weight_layout; constants BLOCK_BYTES

// IQ4_XS: d, the upper two bits of eight scales, their lower four bits, 256 nibbles.
// Scales are stored plus 32.

fn group_step(row_byte: u32, group: u32) -> u32 {
    let block = row_byte + group / 8u * BLOCK_BYTES;
    let head = stored_word(block);
    let d = head & 0xffffu;
    if has_infinite_half(d) {
        return HALF_INFINITY;
    }
    let low = (stored_word(block + 4u) >> (4u * (group % 8u))) & 15u;
    let high = (head >> (16u + 2u * (group % 8u))) & 3u;
    let factor = i32(low | (high << 4u)) - 32;
    return scaled_half(d, u32(abs(factor))) ^ select(0u, 0x8000u, factor < 0);
}

fn write_group(unit: Unit, group: u32) {
    let bytes = stored_vec4(unit.byte + group / 8u * BLOCK_BYTES + 8u + 16u * (group % 8u));
    data[data_vec4(unit.place, group)] = nibble_words(bytes);
}
