//! needs: vec8, weight_layout

// int8 weights, four in a word; see PackFormat::Int.

fn quants8(row: u32, vec8: u32) -> Vec8 {
    let at = data_word(row, vec8 * 2u);
    return Vec8(vec4<f32>(unpack4xI8(data[at])), vec4<f32>(unpack4xI8(data[at + 1u])));
}

// The same eight integers as two words of int8.
fn quants8_int8(row: u32, vec8: u32) -> vec2<u32> {
    let at = data_word(row, vec8 * 2u);
    return vec2<u32>(data[at], data[at + 1u]);
}

const INT8_ZERO: f32 = 0.0;
const INT8_STEP: f32 = 1.0;
