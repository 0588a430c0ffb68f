// Quantizes a group to int8: round(x / s) with s = max|x| / 127.
// The invocations of a subgroup must be contiguous, and their number a multiple of eight.

struct Q8 {
    word: u32,        // four values of this invocation
    group: vec2<f32>, // s, s · sum
}

// Eight neighbouring invocations share a group. Call in uniform control flow.
fn quantize_vec4(values: vec4<f32>) -> Q8 {
    let magnitudes = abs(values);
    var largest = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    largest = max(largest, subgroupShuffleXor(largest, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    largest = max(largest, subgroupShuffleXor(largest, 4u));
    let scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    let q = clamp(vec4<i32>(round(values * inverse)), vec4<i32>(-127), vec4<i32>(127));
    var sum = q.x + q.y + q.z + q.w;
    sum += subgroupShuffleXor(sum, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    sum += subgroupShuffleXor(sum, 4u);
    return Q8(pack4xI8(q), vec2<f32>(scale, scale * f32(sum)));
}
