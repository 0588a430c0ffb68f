//! needs: iq4, vec8, weight_layout

// Eight weights of a row as two words of int8.
fn quants8_int8(row: u32, vec8: u32) -> vec2<u32> {
    let word = data[data_word(row, vec8)];
    return vec2<u32>(levels(word & 0x0f0f0f0fu), levels((word >> 4u) & 0x0f0f0f0fu));
}

fn quants8(row: u32, vec8: u32) -> Vec8 {
    let quants = quants8_int8(row, vec8);
    return Vec8(vec4<f32>(unpack4xI8(quants.x)), vec4<f32>(unpack4xI8(quants.y)));
}

const INT8_ZERO: f32 = 0.0;
const INT8_STEP: f32 = 1.0;
