//! needs: reduce, scales, weights, write_results; constants COLS, GROUP, OFFSET, ROWS, SUBGROUPS,
//! Y_OFFSET, Y_STRIDE

// y[row, Y_OFFSET + n] = finish(sum over k of weight[n, k] · x[row, k]).
// A subgroup has four n. Activations are f32.

@group(0) @binding(0) var<storage, read> data: array<u32>;         // [ROWS, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>; // [ROWS, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;      // [rows, COLS / 4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;      // [rows, Y_STRIDE]

const BLOCK: u32 = min(GROUP, 32u); // columns with one scale that are processed together

fn vec8_product(n: u32, vec8: u32, lo: vec4<f32>, hi: vec4<f32>) -> f32 {
    let quants = quants8(n, vec8);
    return dot(quants.lo, lo) + dot(quants.hi, hi);
}

// The part of four weight rows' products in one block of columns.
// The block's activations are read once for all four.
fn block_products(n: vec4<u32>, block: u32, x_base: u32) -> vec4<f32> {
    var products = vec4<f32>();
    var x_sum = 0.0;
    for (var i = 0u; i < BLOCK / 8u; i++) {
        let vec8 = block * (BLOCK / 8u) + i;
        let lo = x[x_base + vec8 * 2u];
        let hi = x[x_base + vec8 * 2u + 1u];
        products += vec4<f32>(
            vec8_product(n.x, vec8, lo, hi),
            vec8_product(n.y, vec8, lo, hi),
            vec8_product(n.z, vec8, lo, hi),
            vec8_product(n.w, vec8, lo, hi),
        );
        if OFFSET {
            x_sum += dot(lo + hi, vec4<f32>(1.0));
        }
    }
    let group = block * BLOCK / GROUP;
    let a = scale_of(n.x, group);
    let b = scale_of(n.y, group);
    let c = scale_of(n.z, group);
    let d = scale_of(n.w, group);
    return vec4<f32>(a.x, b.x, c.x, d.x) * products + vec4<f32>(a.y, b.y, c.y, d.y) * x_sum;
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let block = group.x + group.y * groups.x;
    let x_base = group.z * (COLS / 4u);
    for (var subgroup = subgroup_index; subgroup < SUBGROUPS; subgroup += subgroup_count) {
        let first = (block * SUBGROUPS + subgroup) * 4u;
        // Weight rows past the end repeat the last one. Their results are not stored.
        let n = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(ROWS - 1u));
        var sums = vec4<f32>();
        for (var b = subgroup_lane; b < COLS / BLOCK; b += subgroup_width) {
            sums += block_products(n, b, x_base);
        }
        sums = subgroup_sum(sums, local);
        if subgroup_lane == 0u {
            write_results(first, sums, group.z * Y_STRIDE + Y_OFFSET);
        }
    }
}
