// Quantizes a group to int8 like q8_subgroup.wgsl, with eight values in each invocation.
// The invocations of a subgroup must be contiguous, and their number a multiple of four.

struct Vec8Q8 {
    words: vec2<u32>, // eight values of this invocation
    group: vec2<f32>, // s, s · sum
}

// Rounds four values of -127 to 127 to the nearest integers as bytes, with ties to even.
// It adds 1.5 · 2^23, which leaves the integer in the last bits of the float.
// That takes fewer and faster instructions than rounding and conversion.
fn rounded_bytes(values: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(values + vec4<f32>(12582912.0)) & vec4<u32>(255u);
    return bits.x | (bits.y << 8u) | (bits.z << 16u) | (bits.w << 24u);
}

// Four neighbouring invocations share a group. Call in uniform control flow.
fn quantize_vec8(lo: vec4<f32>, hi: vec4<f32>) -> Vec8Q8 {
    let magnitudes = max(abs(lo), abs(hi));
    var largest = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    largest = max(largest, subgroupShuffleXor(largest, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    let scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    let words = vec2<u32>(rounded_bytes(lo * inverse), rounded_bytes(hi * inverse));
    var sum = dot4I8Packed(words.x, 0x01010101u) + dot4I8Packed(words.y, 0x01010101u);
    sum += subgroupShuffleXor(sum, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    return Vec8Q8(words, vec2<f32>(scale, scale * f32(sum)));
}
