// Where weights lie: row by row, or where TILED in runs of 16 rows, of which neighbouring rows' 16 bytes, and words of
// scales, are neighbours: data [ROWS / 16, DATA_WORDS / 4, 16, 4], scales [ROWS / 16, SCALE_WORDS, 16].

// Of four words of data.
fn data_four(row: u32, four: u32) -> u32 {
    if TILED {
        return ((row / 16u) * (DATA_WORDS / 4u) + four) * 16u + row % 16u;
    }
    return row * (DATA_WORDS / 4u) + four;
}

fn data_word(row: u32, word: u32) -> u32 {
    if TILED {
        return data_four(row, word / 4u) * 4u + word % 4u;
    }
    return row * DATA_WORDS + word;
}

fn scale_word(row: u32, word: u32) -> u32 {
    if TILED {
        return ((row / 16u) * SCALE_WORDS + word) * 16u + row % 16u;
    }
    return row * SCALE_WORDS + word;
}
