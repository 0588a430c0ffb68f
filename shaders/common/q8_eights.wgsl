// A group of int8 as q8_lanes.wgsl makes it, for subgroups of neighbours, of whole fours: each has eight values.

struct EightQ8 {
    words: vec2<u32>, // this invocation's
    group: vec2<f32>, // s, s · sum
}

// Four neighbouring invocations have a group. Call in uniform control flow.
fn quantize_eight(lo: vec4<f32>, hi: vec4<f32>) -> EightQ8 {
    let magnitudes = max(abs(lo), abs(hi));
    var largest = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    largest = max(largest, subgroupShuffleXor(largest, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    let scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    let q_lo = clamp(vec4<i32>(round(lo * inverse)), vec4<i32>(-127), vec4<i32>(127));
    let q_hi = clamp(vec4<i32>(round(hi * inverse)), vec4<i32>(-127), vec4<i32>(127));
    let both = q_lo + q_hi;
    var sum = both.x + both.y + both.z + both.w;
    sum += subgroupShuffleXor(sum, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    return EightQ8(vec2<u32>(pack4xI8(q_lo), pack4xI8(q_hi)), vec2<f32>(scale, scale * f32(sum)));
}
