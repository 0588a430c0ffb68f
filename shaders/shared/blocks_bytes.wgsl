//! needs: stored_rows, weight_layout; constants BLOCK_BYTES

// Q8_0: a scale, then 32 bytes.

fn group_step(row_byte: u32, group: u32) -> u32 {
    return stored_word(row_byte + group * BLOCK_BYTES) & 0xffffu;
}

fn write_group(unit: Unit, group: u32) {
    let block = unit.byte + group * BLOCK_BYTES;
    for (var i4 = 0u; i4 < 2u; i4++) {
        data[data_vec4(unit.place, group * 2u + i4)] = stored_vec4(block + 2u + 16u * i4);
    }
}
