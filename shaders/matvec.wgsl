// y[row, Y_OFFSET + n] = finish(sum over k of weight[n, k] · x[row, k]), four n a team, f32 activations.

@group(0) @binding(0) var<storage, read> data: array<u32>;         // [ROWS, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<u32>;       // [ROWS, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;      // [rows, COLS / 4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;      // [rows, Y_STRIDE]

const BLOCK: u32 = min(GROUP, 32u); // columns with one scale that are taken together

// The part of row n's product that lies in one block of columns.
fn block_product(n: u32, block: u32, x_base: u32) -> f32 {
    let scale = scale_of(n, block * BLOCK / GROUP);
    var product = 0.0;
    var x_sum = 0.0;
    for (var i = 0u; i < BLOCK / 8u; i++) {
        let octet = block * (BLOCK / 8u) + i;
        let quants = quants8(n, octet);
        let lo = x[x_base + octet * 2u];
        let hi = x[x_base + octet * 2u + 1u];
        product += dot(quants.lo, lo) + dot(quants.hi, hi);
        if OFFSET {
            x_sum += dot(lo + hi, vec4<f32>(1.0));
        }
    }
    return scale.x * product + scale.y * x_sum;
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let block = group.x + group.y * groups.x;
    let x_base = group.z * (COLS / 4u);
    for (var team = team_index; team < TEAMS; team += team_count) {
        let first = (block * TEAMS + team) * 4u;
        // Rows past the end repeat the last one and are not written.
        let n = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(ROWS - 1u));
        var sums = vec4<f32>();
        for (var b = team_lane; b < COLS / BLOCK; b += team_size) {
            sums.x += block_product(n.x, b, x_base);
            sums.y += block_product(n.y, b, x_base);
            sums.z += block_product(n.z, b, x_base);
            sums.w += block_product(n.w, b, x_base);
        }
        sums = team_sum(sums, local);
        if team_lane == 0u {
            write_results(first, sums, group.z * Y_STRIDE + Y_OFFSET);
        }
    }
}
