//! needs: constants DATA_WORDS, SCALE_WORDS, INTERLEAVED16
// Where weights lie: row by row, or where INTERLEAVED16 in runs of 16 rows, of which neighbouring
// rows' 16
// bytes, and words of scales, are contiguous: data [ROWS / 16, DATA_WORDS / 4, 16, 4], scales [ROWS
// / 16, SCALE_WORDS, 16], of Q4_K [ROWS / 16, SCALE_WORDS / 4, 16, 4].

// Of a unit of words, of which a row has so many.
fn unit_place(row: u32, unit: u32, row_units: u32) -> u32 {
    if INTERLEAVED16 {
        return ((row / 16u) * row_units + unit) * 16u + row % 16u;
    }
    return row * row_units + unit;
}

// Of four words of data.
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

// Of four words of Q4_K's scales.
fn scale_vec4(row: u32, i4: u32) -> u32 {
    return unit_place(row, i4, SCALE_WORDS / 4u);
}
