//! needs: stored_rows, weight_place; constants BLOCK_BYTES
// Q8_0: a scale, then 32 bytes.

fn group_step(row_byte: u32, group: u32) -> u32 {
    return stored_word(row_byte + group * BLOCK_BYTES) & 0xffffu;
}

fn write_group(unit: Unit, group: u32) {
    let block = unit.byte + group * BLOCK_BYTES;
    for (var four = 0u; four < 2u; four++) {
        data[data_four(unit.place, group * 2u + four)] = stored_four(block + 2u + 16u * four);
    }
}
