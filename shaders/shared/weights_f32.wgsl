//! needs: octet; constants DATA_WORDS
// Weights stored as f32; see PackFormat::F32.

fn quants8(row: u32, octet: u32) -> Octet {
    let at = row * DATA_WORDS + octet * 8u;
    let lo = vec4<u32>(data[at], data[at + 1u], data[at + 2u], data[at + 3u]);
    let hi = vec4<u32>(data[at + 4u], data[at + 5u], data[at + 6u], data[at + 7u]);
    return Octet(bitcast<vec4<f32>>(lo), bitcast<vec4<f32>>(hi));
}
