//! needs: octet; constants DATA_WORDS
// Weights stored as f16, two in a word; see PackFormat::F16.

fn quants8(row: u32, octet: u32) -> Octet {
    let at = row * DATA_WORDS + octet * 4u;
    return Octet(
        vec4<f32>(unpack2x16float(data[at]), unpack2x16float(data[at + 1u])),
        vec4<f32>(unpack2x16float(data[at + 2u]), unpack2x16float(data[at + 3u])),
    );
}
