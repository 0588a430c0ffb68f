//! needs: activations, product, weight_groups

// Weights of other formats, in groups of 32.

// A half of a warp has one group of a pair.
fn load_weights(place: u32, local: u32) -> StoredGroup {
    let row = place / PAIRS * 16u + local % 16u;
    return load_stored_group(row, place % PAIRS * 2u + local / 16u % 2u);
}

fn group_product(weights: StoredGroup, group: u32, local: u32) -> f32 {
    let x_group = x_groups[group] * vec2<f32>(1.0, 0.125);
    let lo = x_quants[group * 2u];
    return product(group_weights(weights, group), lo, x_quants[group * 2u + 1u], x_group);
}
