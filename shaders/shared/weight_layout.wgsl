//! needs: constants DATA_WORDS, SCALE_WORDS, INTERLEAVED16

// The places of weights. Rows follow one another, or with INTERLEAVED16 they are in runs of 16.
// In such a run, the same 16 bytes of neighbouring rows are contiguous, and so are words of scales:
//   data [ROWS / 16, DATA_WORDS / 4, 16, 4]
//   scales [ROWS / 16, SCALE_WORDS, 16]
//   scales of Q4_K [ROWS / 16, SCALE_WORDS / 4, 16, 4]

// The place of a unit of words. A row has `row_units` units.
fn unit_place(row: u32, unit: u32, row_units: u32) -> u32 {
    if INTERLEAVED16 {
        return ((row / 16u) * row_units + unit) * 16u + row % 16u;
    }
    return row * row_units + unit;
}

// The place of four words of data.
fn data_vec4(row: u32, i4: u32) -> u32 {
    return unit_place(row, i4, DATA_WORDS / 4u);
}

fn data_word(row: u32, word: u32) -> u32 {
    if INTERLEAVED16 {
        return data_vec4(row, word / 4u) * 4u + word % 4u;
    }
    return row * DATA_WORDS + word;
}

fn scale_word(row: u32, word: u32) -> u32 {
    return unit_place(row, word, SCALE_WORDS);
}

// The place of four words of Q4_K's scales.
fn scale_vec4(row: u32, i4: u32) -> u32 {
    return unit_place(row, i4, SCALE_WORDS / 4u);
}
