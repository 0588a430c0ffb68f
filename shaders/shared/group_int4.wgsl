//! needs: scales, weight_layout; constants GROUP, OFFSET
// A group of 32 int4 weights as dot4I8Packed takes them.
struct GroupWeights {
    quants: vec4<u32>,
    scale: vec2<f32>,
}

fn load_group(row: u32, group: u32) -> GroupWeights {
    return GroupWeights(data[data_vec4(row, group)], scale_of(row, group * 32u / GROUP));
}

fn product(weights: GroupWeights, lo: vec4<u32>, hi: vec4<u32>, x_group: vec2<f32>) -> f32 {
    let even = weights.quants & vec4<u32>(0x0f0f0f0fu);
    let odd = (weights.quants >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    // The sum is that of 1.5 · 2^23's bits and integers under 2^22: as f32 the same sum, without a
    // conversion.
    var sum = 0x4b400000i + dot4I8Packed(even.x, lo.x) + dot4I8Packed(odd.x, lo.y);
    sum += dot4I8Packed(even.y, lo.z) + dot4I8Packed(odd.y, lo.w);
    sum += dot4I8Packed(even.z, hi.x) + dot4I8Packed(odd.z, hi.y);
    sum += dot4I8Packed(even.w, hi.z) + dot4I8Packed(odd.w, hi.w);
    // Without offsets, zero lies at 8.
    let offset = select(weights.scale.x * -8.0, weights.scale.y, OFFSET);
    return weights.scale.x * x_group.x * (bitcast<f32>(sum) - 12582912.0) + offset * x_group.y;
}

// Before weights are read, by all invocations of a workgroup of that size.
fn prepare_weights(local: u32, size: u32) {}
