//! needs: block_scales, bytes, weight_bytes; constants GROUP

// 32 weights of a row in the format of dot4I8Packed.
struct GroupWeights {
    bytes: Bytes,
    scale: vec2<f32>, // from block_scales, for one step of the bytes
}

// The same as stored, for kernels that load long before use.
struct StoredGroup {
    stored: Stored,
    scale: ScaleUnit,
}

fn load_stored_group(row: u32, group: u32) -> StoredGroup {
    return StoredGroup(load_stored(row, group), load_block_scales(row, group));
}

fn group_weights(weights: StoredGroup, group: u32) -> GroupWeights {
    let steps = select(vec2<f32>(INT8_STEP, 1.0), vec2<f32>(INT8_STEP), GROUP == 16u);
    return GroupWeights(to_bytes(weights.stored), block_scales_in(weights.scale, group) * steps);
}

fn load_group(row: u32, group: u32) -> GroupWeights {
    return group_weights(load_stored_group(row, group), group);
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z)
        + dot4I8Packed(a.w, b.w);
}

fn product(weights: GroupWeights, lo: vec4<u32>, hi: vec4<u32>, x_group: vec2<f32>) -> f32 {
    let first = dot16(weights.bytes.lo, lo);
    let second = dot16(weights.bytes.hi, hi);
    if GROUP == 16u {
        return x_group.x * (weights.scale.x * f32(first) + weights.scale.y * f32(second));
    }
    return weights.scale.x * x_group.x * f32(first + second) + weights.scale.y * x_group.y;
}
