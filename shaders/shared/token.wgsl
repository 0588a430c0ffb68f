//! needs: step
// The token of a row: that of the step, or the last one that was chosen for the row's sequence.
fn token_of(row: Row) -> u32 {
    if row.token == TAKE_SAMPLED {
        return sampled[row.slot];
    }
    return row.token;
}
