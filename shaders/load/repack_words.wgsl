//! needs: stored_rows, weight_layout; constants DATA_WORDS, FLOATS, HIGH_EXPONENT, LOW_EXPONENT,
//! STORED_DATA_BYTES

// Copies rows whose words have the device's format already.
// A row is its words of data, then STORED_SCALE_WORDS of scales. Floats may need padding.
// An invocation copies four words of data or one word of scales.

// The part of a word that belongs to its row. The rest is zero.
fn in_row(word: u32, at: u32) -> u32 {
    let left = STORED_DATA_BYTES - min(STORED_DATA_BYTES, at);
    return select(word & ((1u << (8u * (left % 4u))) - 1u), word, left >= 4u);
}

// Whether a word contains a float that is NaN or infinite.
fn has_infinite(word: u32) -> bool {
    return FLOATS
        && ((word & LOW_EXPONENT) == LOW_EXPONENT || (word & HIGH_EXPONENT) == HIGH_EXPONENT);
}

fn repack(unit: Unit) {
    if unit.index < DATA_WORDS / 4u {
        let at = 16u * unit.index;
        let words = stored_vec4(unit.byte + at);
        let kept =
            vec4<u32>(
                in_row(words.x, at),
                in_row(words.y, at + 4u),
                in_row(words.z, at + 8u),
                in_row(words.w, at + 12u),
            );
        data[data_vec4(unit.place, unit.index)] = kept;
        if has_infinite(kept.x) || has_infinite(kept.y) || has_infinite(kept.z)
            || has_infinite(kept.w) {
            note_fault(unit);
        }
    } else {
        let word = unit.index - DATA_WORDS / 4u;
        let step = stored_word(unit.byte + STORED_DATA_BYTES + 4u * word);
        scales[scale_word(unit.place, word)] = step;
        if has_infinite_half(step) {
            note_fault(unit);
        }
    }
}
