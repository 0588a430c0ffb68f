//! needs: block_scales, weight_bytes; constants GROUP, OFFSET

// 32 weights of a row as f16, in the column order of epilogue_f16. They are unpacked to int8 first.
// The kernel's put_weights writes four weights to its tile.
struct BlockWeights {
    stored: Stored,
    scale: vec2<f32>, // from block_scales
}

fn load_weights(row: u32, block: u32) -> BlockWeights {
    return BlockWeights(load_stored(row, block), block_scales(row, block));
}

// Multiplies the integers by INT8_STEP first, as scale · INT8_STEP may be too small for f16.
fn write_word(at: u32, word: u32, scale: f16, offset: f16) {
    put_weights(at, vec4<f16>(vec4<f32>(unpack4xI8(word)).xzyw) * f16(INT8_STEP) * scale + offset);
}

fn write_half(at: u32, words: vec4<u32>, scale: f16, offset: f16) {
    write_word(at, words.x, scale, offset);
    write_word(at + 1u, words.y, scale, offset);
    write_word(at + 2u, words.z, scale, offset);
    write_word(at + 3u, words.w, scale, offset);
}

fn write_weights(at: u32, weights: BlockWeights) {
    let bytes = to_bytes(weights.stored);
    let offset = f16(select(0.0, weights.scale.y, OFFSET));
    write_half(at, bytes.lo, f16(weights.scale.x), offset);
    write_half(
        at + 4u, bytes.hi, f16(select(weights.scale.x, weights.scale.y, GROUP == 16u)), offset,
    );
}
