//! needs: step

// The token of a row: the step's token, or the last one chosen for the row's sequence.
fn token_of(row: Row) -> u32 {
    if row.token == TAKE_SAMPLED {
        return sampled[row.slot];
    }
    return row.token;
}
