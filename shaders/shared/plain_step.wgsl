//! needs: stored_rows; constants BLOCK_BYTES, OFFSET

// The scale at the start of a block, and with OFFSET also its offset.
fn group_step(row_byte: u32, group: u32) -> u32 {
    let word = stored_word(row_byte + group * BLOCK_BYTES);
    return select(word & 0xffffu, word, OFFSET);
}
