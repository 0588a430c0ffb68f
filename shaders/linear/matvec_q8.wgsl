//! needs: reduce, scales, weights, write_results; constants COLS, GROUP, ROWS, SUBGROUPS, Y_OFFSET,
//! Y_STRIDE

// y[row, Y_OFFSET + n] = finish(sum over k of weight[n, k] · x[row, k]).
// A subgroup has four n. Activations are int8.
// The products in a group are integers (dot4I8Packed), which are then multiplied by the scales.

@group(0) @binding(0) var<storage, read> data: array<u32>;            // [ROWS, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>;    // [ROWS, SCALE_WORDS]
// [rows, COLS / 4], four int8 a word
@group(0) @binding(2) var<storage, read> x: array<u32>;
// [rows, COLS / 32]: scale, scale · sum
@group(0) @binding(3) var<storage, read> x_groups: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [rows, Y_STRIDE]

const PART: u32 = min(GROUP, 32u); // columns with one scale

// The part of row n's product in one group of 32 columns.
fn group_product(n: u32, group: u32, row: u32) -> f32 {
    let x_group = x_groups[row * (COLS / 32u) + group];
    var product = 0.0;
    for (var part = 0u; part < 32u / PART; part++) {
        var sum = 0;
        for (var i = 0u; i < PART / 8u; i++) {
            let vec8 = group * 4u + part * (PART / 8u) + i;
            let quants = quants8_int8(n, vec8);
            let at = row * (COLS / 4u) + vec8 * 2u;
            sum += dot4I8Packed(quants.x, x[at]) + dot4I8Packed(quants.y, x[at + 1u]);
        }
        let scale = scale_of(n, (group * 32u + part * PART) / GROUP);
        product += scale.x * INT8_STEP * x_group.x * f32(sum);
        // Only formats with groups of 32 or more have an offset or a zero point. So the sum of 32
        // activations is enough.
        product += (scale.y - scale.x * INT8_ZERO) * x_group.y;
    }
    return product;
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let block = group.x + group.y * groups.x;
    for (var subgroup = subgroup_index; subgroup < SUBGROUPS; subgroup += subgroup_count) {
        let first = (block * SUBGROUPS + subgroup) * 4u;
        // Weight rows past the end repeat the last one. Their results are not stored.
        let n = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(ROWS - 1u));
        var sums = vec4<f32>();
        for (var g = subgroup_lane; g < COLS / 32u; g += subgroup_width) {
            sums.x += group_product(n.x, g, group.z);
            sums.y += group_product(n.y, g, group.z);
            sums.z += group_product(n.z, g, group.z);
            sums.w += group_product(n.w, g, group.z);
        }
        sums = subgroup_sum(sums, local);
        if subgroup_lane == 0u {
            write_results(first, sums, group.z * Y_STRIDE + Y_OFFSET);
        }
    }
}
