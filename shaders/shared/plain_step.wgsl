//! needs: stored_rows; constants BLOCK_BYTES, OFFSET
// A block's own scale and, if OFFSET, offset, with which it begins.
fn group_step(row_byte: u32, group: u32) -> u32 {
    let word = stored_word(row_byte + group * BLOCK_BYTES);
    return select(word & 0xffffu, word, OFFSET);
}
