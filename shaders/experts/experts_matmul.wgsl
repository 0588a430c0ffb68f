//! needs: pairs_of_tile, gelu, real, scales, vec8, weights; constants COLS, EXPERTS,
//! FEATURES, FIRST_EXPERT, GATED, GROUP, SHARE, Y_STRIDE

// As experts_matvec, for many pairs of each expert.
// Tiles of 32 pairs × 64 rows of weights × 32 k are in workgroup memory.
// An invocation has 4 × 4 results. With GATED, a tile has 32 rows of gate and 32 of up.

@group(0) @binding(0) var<storage, read> data: array<u32>;         // [EXPERTS · rows, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>; // [EXPERTS · rows, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;      // [pairs / SHARE, COLS / 4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;      // [pairs, Y_STRIDE]

const TILE_M: u32 = 32u;
const TILE_N: u32 = 64u;
const TILE_K: u32 = 32u;
const ROWS: u32 = select(FEATURES, 2u * FEATURES, GATED); // of an expert
const TILE_FEATURES: u32 = select(TILE_N, TILE_N / 2u, GATED);
var<workgroup> x_tile: array<vec4<real>, TILE_K * TILE_M / 4u>; // [k, pair]
var<workgroup> w_tile: array<vec4<real>, TILE_K * TILE_N / 4u>; // [k, row]

// The row of weights for a column of the tile. With GATED, two of gate and two of up alternate.
fn weight_row(first: u32, column: u32) -> u32 {
    if GATED {
        let feature = min(first + column / 4u * 2u + column % 2u, FEATURES - 1u);
        return feature + select(0u, FEATURES, column % 4u >= 2u);
    }
    return min(first + column, FEATURES - 1u);
}

fn to_real(values: vec4<f32>) -> vec4<real> {
    return vec4<real>(clamp(values, vec4<f32>(-REAL_MAX), vec4<f32>(REAL_MAX)));
}

fn load_weights(row: u32, vec8: u32) -> Vec8 {
    let quants = quants8(row, vec8);
    let scale = scale_of(row, vec8 * 8u / GROUP);
    return Vec8(quants.lo * scale.x + scale.y, quants.hi * scale.x + scale.y);
}

fn store(pair: u32, feature: u32, value: f32) {
    if feature < FEATURES {
        y[pair * Y_STRIDE + feature] = value;
    }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = tile_of(group.y);
    let expert = tile.expert - FIRST_EXPERT;
    if tile.count == 0u || expert >= EXPERTS {
        return;
    }
    let first_n = group.x * TILE_FEATURES;
    let tx = local % 16u; // column / 4
    let ty = local / 16u; // pair / 4
    let lane = local / 4u; // the pair and two columns that this invocation loads
    let vec8 = local % 4u; // the vec8 of these
    // Places past the tile's end repeat its last pair. Their results are not stored.
    let x_base = pair_at(tile.first + min(lane, tile.count - 1u)) / SHARE * (COLS / 4u);
    let first_row = expert * ROWS + weight_row(first_n, lane);
    let second_row = expert * ROWS + weight_row(first_n, lane + 32u);
    var sums = array<vec4<f32>, 4>();
    for (var k = 0u; k < COLS; k += TILE_K) {
        let at = k / 8u + vec8;
        let xs_lo = to_real(x[x_base + at * 2u]);
        let xs_hi = to_real(x[x_base + at * 2u + 1u]);
        let first = load_weights(first_row, at);
        let second = load_weights(second_row, at);
        let first_lo = to_real(first.lo);
        let first_hi = to_real(first.hi);
        let second_lo = to_real(second.lo);
        let second_hi = to_real(second.hi);
        for (var i = 0u; i < 4u; i++) { // unrolled
            let k_lo = vec8 * 8u + i;
            let k_hi = k_lo + 4u;
            x_tile[k_lo * (TILE_M / 4u) + lane / 4u][lane % 4u] = xs_lo[i];
            x_tile[k_hi * (TILE_M / 4u) + lane / 4u][lane % 4u] = xs_hi[i];
            w_tile[k_lo * (TILE_N / 4u) + lane / 4u][lane % 4u] = first_lo[i];
            w_tile[k_hi * (TILE_N / 4u) + lane / 4u][lane % 4u] = first_hi[i];
            w_tile[k_lo * (TILE_N / 4u) + 8u + lane / 4u][lane % 4u] = second_lo[i];
            w_tile[k_hi * (TILE_N / 4u) + 8u + lane / 4u][lane % 4u] = second_hi[i];
        }
        workgroupBarrier();
        for (var i = 0u; i < TILE_K; i++) {
            let a = vec4<f32>(x_tile[i * (TILE_M / 4u) + ty]);
            let b = vec4<f32>(w_tile[i * (TILE_N / 4u) + tx]);
            sums[0] += a.x * b;
            sums[1] += a.y * b;
            sums[2] += a.z * b;
            sums[3] += a.w * b;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let place = ty * 4u + i;
        if place < tile.count {
            let pair = pair_at(tile.first + place);
            let sum = sums[i];
            if GATED {
                store(pair, first_n + tx * 2u, gelu_tanh(sum.x) * sum.z);
                store(pair, first_n + tx * 2u + 1u, gelu_tanh(sum.y) * sum.w);
            } else {
                store(pair, first_n + tx * 4u, sum.x);
                store(pair, first_n + tx * 4u + 1u, sum.y);
                store(pair, first_n + tx * 4u + 2u, sum.z);
                store(pair, first_n + tx * 4u + 3u, sum.w);
            }
        }
    }
}
