//! needs: reduce; constants EPS, N, PARTS, PART_STRIDE, WORKGROUP

// A sublayer output as a sum of parts, and the factor of its norm.

const VEC4S: u32 = (N + 3u) / 4u;

fn branch_at(index: u32) -> vec4<f32> {
    var sum = branch[index];
    for (var part = 1u; part < PARTS; part++) {
        sum += branch[part * (PART_STRIDE / 4u) + index];
    }
    return sum;
}

// The factor for the row that begins at `base`. Call in uniform control flow.
fn branch_factor(base: u32, local: u32) -> f32 {
    var squares = 0.0;
    for (var i = local; i < VEC4S; i += WORKGROUP) {
        let value = branch_at(base + i);
        squares += dot(value, value);
    }
    return inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
}
