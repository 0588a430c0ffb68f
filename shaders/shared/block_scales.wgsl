//! needs: scales, weight_layout; constants GROUP

// Scale and offset of 32 columns. Groups of 16 have no offsets.
// There the result is the scales of both groups.
fn block_scales(row: u32, block: u32) -> vec2<f32> {
    if GROUP == 16u {
        return unpack2x16float(scales[scale_word(row, block)]);
    }
    return scale_of(row, block * 32u / GROUP);
}
