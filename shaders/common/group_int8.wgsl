// A group of 32 int8 weights as dot4I8Packed takes them. Groups of 16 have a scale for each half and no offset.
struct GroupWeights {
    lo: vec4<u32>,
    hi: vec4<u32>,
    scale: vec2<f32>, // scale and offset; the scales of both halves where groups are of 16
}

fn load_group(row: u32, group: u32) -> GroupWeights {
    var scale = scale_of(row, group);
    if GROUP == 16u {
        scale = vec2<f32>(scale_of(row, group * 2u).x, scale_of(row, group * 2u + 1u).x);
    }
    return GroupWeights(data[data_four(row, group * 2u)], data[data_four(row, group * 2u + 1u)], scale);
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

fn product(weights: GroupWeights, lo: vec4<u32>, hi: vec4<u32>, x_group: vec2<f32>) -> f32 {
    let first = dot16(weights.lo, lo);
    let second = dot16(weights.hi, hi);
    if GROUP == 16u {
        return x_group.x * (weights.scale.x * f32(first) + weights.scale.y * f32(second));
    }
    return weights.scale.x * x_group.x * f32(first + second) + weights.scale.y * x_group.y;
}
