//! needs: activations, product

// int4 weights in symmetric groups of 32.

alias ScaleUnit = u32;

struct StoredGroup {
    quants: vec4<u32>, // a group of a row
    pair: u32,         // its scale and that of its neighbour
}

fn load_weights(place: u32, local: u32) -> StoredGroup {
    let quants = data[data_index(MATRIX, place, local)];
    return StoredGroup(quants, scales[scale_index(MATRIX, place, local)]);
}

fn group_product(weights: StoredGroup, group: u32, local: u32) -> f32 {
    let quants = weights.quants;
    let scale = unpack2x16float(weights.pair >> (local & 16u)).x;
    let lo = x_quants[group * 2u];
    let hi = x_quants[group * 2u + 1u];
    let even = quants & vec4<u32>(0x0f0f0f0fu);
    let odd = (quants >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    // group_int4.wgsl explains this constant.
    var sum = 0x4b400000i + dot4I8Packed(even.x, lo.x) + dot4I8Packed(odd.x, lo.y);
    sum += dot4I8Packed(even.y, lo.z) + dot4I8Packed(odd.y, lo.w);
    sum += dot4I8Packed(even.z, hi.x) + dot4I8Packed(odd.z, hi.y);
    sum += dot4I8Packed(even.w, hi.z) + dot4I8Packed(odd.w, hi.w);
    let x = x_groups[group];
    // The weight 0 is stored as 8.
    return scale * (x.x * (bitcast<f32>(sum) - 12582912.0) - x.y);
}
