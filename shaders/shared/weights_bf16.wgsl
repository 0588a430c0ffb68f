//! needs: vec8; constants DATA_WORDS

// Weights stored as bfloat16, two in a word; see PackFormat::BF16.

fn unpack_bf16(word: u32) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(word << 16u, word & 0xffff0000u));
}

fn quants8(row: u32, vec8: u32) -> Vec8 {
    let at = row * DATA_WORDS + vec8 * 4u;
    return Vec8(
        vec4<f32>(unpack_bf16(data[at]), unpack_bf16(data[at + 1u])),
        vec4<f32>(unpack_bf16(data[at + 2u]), unpack_bf16(data[at + 3u])),
    );
}
