//! needs: octet, weight_place
// int8 weights, four in a word; see PackFormat::Int.

fn quants8(row: u32, octet: u32) -> Octet {
    let at = data_word(row, octet * 2u);
    return Octet(vec4<f32>(unpack4xI8(data[at])), vec4<f32>(unpack4xI8(data[at + 1u])));
}

// The same eight quants as two words of int8.
fn quants8_int8(row: u32, octet: u32) -> vec2<u32> {
    let at = data_word(row, octet * 2u);
    return vec2<u32>(data[at], data[at + 1u]);
}

const INT8_ZERO: f32 = 0.0;
const INT8_STEP: f32 = 1.0;
