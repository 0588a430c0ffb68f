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

// Two bytes, 16 bits apart, as f16. With its sign bit inverted, a byte is the integer plus 128.
// It becomes the last bits of the f16 number 1024.
fn two(bits: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((bits & 0x00ff00ffu) ^ 0x64806480u)) - 1152.0h;
}

// Multiplies the integers by INT8_STEP first, as scale · INT8_STEP may be too small for f16.
fn write_word(at: u32, word: u32, scale: f16, offset: f16) {
    let weights = vec4<f16>(two(word), two(word >> 8u)) * f16(INT8_STEP) * scale;
    if OFFSET {
        put_weights(at, weights + offset);
    } else {
        put_weights(at, weights);
    }
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
