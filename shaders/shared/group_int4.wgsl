//! needs: scales, weight_layout; constants GROUP, OFFSET

// A group of 32 int4 weights in the format of dot4I8Packed.
struct GroupWeights {
    quants: vec4<u32>,
    scale: vec2<f32>,
}

// The same as stored, for kernels that load long before use.
struct StoredGroup {
    quants: vec4<u32>,
    scale: ScaleUnit,
}

fn load_stored_group(row: u32, group: u32) -> StoredGroup {
    return StoredGroup(data[data_vec4(row, group)], load_scale(row, group * 32u / GROUP));
}

fn group_weights(stored: StoredGroup, group: u32) -> GroupWeights {
    return GroupWeights(stored.quants, scale_in(stored.scale, group * 32u / GROUP));
}

fn load_group(row: u32, group: u32) -> GroupWeights {
    return group_weights(load_stored_group(row, group), group);
}

fn product(weights: GroupWeights, lo: vec4<u32>, hi: vec4<u32>, x_group: vec2<f32>) -> f32 {
    let even = weights.quants & vec4<u32>(0x0f0f0f0fu);
    let odd = (weights.quants >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    // The sum starts with the bits of the float 1.5 · 2^23 and adds integers under 2^22.
    // Read as f32, it is the float 1.5 · 2^23 plus these integers. That needs no conversion.
    var sum = 0x4b400000i + dot4I8Packed(even.x, lo.x) + dot4I8Packed(odd.x, lo.y);
    sum += dot4I8Packed(even.y, lo.z) + dot4I8Packed(odd.y, lo.w);
    sum += dot4I8Packed(even.z, hi.x) + dot4I8Packed(odd.z, hi.y);
    sum += dot4I8Packed(even.w, hi.z) + dot4I8Packed(odd.w, hi.w);
    // Without offsets, the weight 0 is stored as 8.
    let offset = select(weights.scale.x * -8.0, weights.scale.y, OFFSET);
    return weights.scale.x * x_group.x * (bitcast<f32>(sum) - 12582912.0) + offset * x_group.y;
}

// All invocations call this before they read weights. `size` is the size of the workgroup.
fn prepare_weights(local: u32, size: u32) {}
