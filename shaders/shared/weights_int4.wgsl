//! needs: vec8, weight_layout; constants OFFSET

// int4 weights, eight in a word, see PackFormat::Int. Without offsets, the weight 0 is stored as 8.

const ZERO: f32 = select(8.0, 0.0, OFFSET);

fn quants8(row: u32, vec8: u32) -> Vec8 {
    let word = data[data_word(row, vec8)];
    return Vec8(
        vec4<f32>(unpack4xU8(word & 0x0f0f0f0fu)) - ZERO,
        vec4<f32>(unpack4xU8((word >> 4u) & 0x0f0f0f0fu)) - ZERO,
    );
}

// The same eight integers as two words of int8.
fn quants8_int8(row: u32, vec8: u32) -> vec2<u32> {
    let word = data[data_word(row, vec8)];
    return vec2<u32>(word & 0x0f0f0f0fu, (word >> 4u) & 0x0f0f0f0fu);
}

const INT8_ZERO: f32 = ZERO;
const INT8_STEP: f32 = 1.0;
