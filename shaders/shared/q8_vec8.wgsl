// A group of int8 as q8_subgroup.wgsl makes it, for subgroups of contiguous, of whole fours: each
// has
// eight values.

struct Vec8Q8 {
    words: vec2<u32>, // this invocation's
    group: vec2<f32>, // s, s · sum
}

// Four values of -127 to 127 to the nearest integers (to the even one of two), as bytes: added to
// 1.5 · 2^23 they are the last bits of the sum. That takes fewer and faster instructions than to
// round and convert.
fn rounded_bytes(values: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(values + vec4<f32>(12582912.0)) & vec4<u32>(255u);
    return bits.x | (bits.y << 8u) | (bits.z << 16u) | (bits.w << 24u);
}

// Four neighbouring invocations have a group. Call in uniform control flow.
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
