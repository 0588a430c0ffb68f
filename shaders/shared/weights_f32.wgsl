//! needs: vec8; constants DATA_WORDS

// Weights stored as f32; see PackFormat::F32.

fn quants8(row: u32, vec8: u32) -> Vec8 {
    let at = row * DATA_WORDS + vec8 * 8u;
    let lo = vec4<u32>(data[at], data[at + 1u], data[at + 2u], data[at + 3u]);
    let hi = vec4<u32>(data[at + 4u], data[at + 5u], data[at + 6u], data[at + 7u]);
    return Vec8(bitcast<vec4<f32>>(lo), bitcast<vec4<f32>>(hi));
}
