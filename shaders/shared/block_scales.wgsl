//! needs: scales; constants GROUP

// The words with the scales of 32 columns.
fn load_block_scales(row: u32, block: u32) -> ScaleUnit {
    return load_scale(row, block * 32u / GROUP);
}

// Scale and offset of 32 columns. Groups of 16 have no offsets.
// There the result is the scales of both groups, which share a word.
fn block_scales_in(unit: ScaleUnit, block: u32) -> vec2<f32> {
    let scale = scale_in(unit, block * 32u / GROUP);
    if GROUP == 16u {
        return vec2<f32>(scale.x, scale_in(unit, block * 32u / GROUP + 1u).x);
    }
    return scale;
}

fn block_scales(row: u32, block: u32) -> vec2<f32> {
    return block_scales_in(load_block_scales(row, block), block);
}
