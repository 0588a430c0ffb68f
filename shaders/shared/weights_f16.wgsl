//! needs: vec8; constants DATA_WORDS

// Weights stored as f16, two in a word; see PackFormat::F16.

fn quants8(row: u32, vec8: u32) -> Vec8 {
    let at = row * DATA_WORDS + vec8 * 4u;
    return Vec8(
        vec4<f32>(unpack2x16float(data[at]), unpack2x16float(data[at + 1u])),
        vec4<f32>(unpack2x16float(data[at + 2u]), unpack2x16float(data[at + 3u])),
    );
}
