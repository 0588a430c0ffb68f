//! needs: vec8, real, scales, step, weights, write_results; constants COLS, GROUP, OVER_OUTPUTS,
//! ROWS, Y_OFFSET, Y_STRIDE

// y[row, Y_OFFSET + n] = finish(sum over k of weight[n, k] · x[row, k]) for many rows.
// Tiles of 64 rows × 64 n × 32 k are in workgroup memory. An invocation has 4 × 4 results.

@group(0) @binding(0) var<storage, read> data: array<u32>;         // [ROWS, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>; // [ROWS, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;      // [rows, COLS / 4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;      // [rows, Y_STRIDE]
@group(0) @binding(4) var<uniform> step: Step;

const TILE: u32 = 64u;
const TILE_K: u32 = 32u;
var<workgroup> x_tile: array<vec4<real>, TILE_K * TILE / 4u>; // [k, row]
var<workgroup> w_tile: array<vec4<real>, TILE_K * TILE / 4u>; // [k, n]

// Rows of x and y.
fn row_count() -> u32 {
    return select(step.rows, step.outputs, OVER_OUTPUTS);
}

// Activations past the end of the step are zero.
fn load_x(row: u32, vec8: u32) -> Vec8 {
    if row >= row_count() {
        return Vec8();
    }
    let at = row * (COLS / 4u) + vec8 * 2u;
    return Vec8(x[at], x[at + 1u]);
}

fn load_weights(n: u32, vec8: u32) -> Vec8 {
    if n >= ROWS {
        return Vec8();
    }
    let quants = quants8(n, vec8);
    let scale = scale_of(n, vec8 * 8u / GROUP);
    return Vec8(quants.lo * scale.x + scale.y, quants.hi * scale.x + scale.y);
}

fn to_real(values: vec4<f32>) -> vec4<real> {
    return vec4<real>(clamp(values, vec4<f32>(-REAL_MAX), vec4<f32>(REAL_MAX)));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first_row = group.y * TILE;
    let first_n = group.x * TILE;
    let tx = local % 16u; // n / 4
    let ty = local / 16u; // row / 4
    let lane = local / 4u; // the row of x and of the weights that this invocation loads
    let vec8 = local % 4u; // the vec8 of that row
    var sums = array<vec4<f32>, 4>();
    for (var k = 0u; k < COLS; k += TILE_K) {
        let xs = load_x(first_row + lane, k / 8u + vec8);
        let ws = load_weights(first_n + lane, k / 8u + vec8);
        let xs_lo = to_real(xs.lo);
        let xs_hi = to_real(xs.hi);
        let ws_lo = to_real(ws.lo);
        let ws_hi = to_real(ws.hi);
        for (var i = 0u; i < 4u; i++) {
            let lo = (vec8 * 8u + i) * (TILE / 4u) + lane / 4u;
            let hi = lo + 4u * (TILE / 4u);
            x_tile[lo][lane % 4u] = xs_lo[i];
            x_tile[hi][lane % 4u] = xs_hi[i];
            w_tile[lo][lane % 4u] = ws_lo[i];
            w_tile[hi][lane % 4u] = ws_hi[i];
        }
        workgroupBarrier();
        for (var i = 0u; i < TILE_K; i++) {
            let a = vec4<f32>(x_tile[i * (TILE / 4u) + ty]);
            let b = vec4<f32>(w_tile[i * (TILE / 4u) + tx]);
            sums[0] += a.x * b;
            sums[1] += a.y * b;
            sums[2] += a.z * b;
            sums[3] += a.w * b;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + ty * 4u + i;
        if row < row_count() {
            write_results(first_n + tx * 4u, sums[i], row * Y_STRIDE + Y_OFFSET);
        }
    }
}
