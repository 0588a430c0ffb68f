//! needs: scales, step, weight_halves; constants COLS, FIRST_ROW, M_STRIDE, ROWS, SPLITS,
//! SPLIT_STRIDE, Y_OFFSET, Y_STRIDE; enables f16, wgpu_cooperative_matrix

// matmul_coop.wgsl for the 8 × 8 cooperative matrices of Metal.
// It computes y[m, Y_OFFSET + n] = sum over k of weight[n, k] · x[m, k].
// Inputs are f16 and sums f32.
// A workgroup of four subgroups computes 32 rows m × 128 columns n, in steps of 32 k.
// Each subgroup has 32 × 32 of these results.
// Tiles are written from registers to workgroup memory while the next ones are loaded.
// Where SPLITS > 1, workgroups divide k (split-K), and result s begins at SPLIT_STRIDE · s.
//
// Metal loads matrices through pointers to their elements.
// So tiles are arrays of f16, as arrays of vec4 would not compile there.
// Weights are the left factor, and activations are transposed when they are written to the tile.
// So only the stores of the results transpose.

// [FIRST_ROW + ROWS…, DATA_WORDS / 4]
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>;  // [ROWS, SCALE_WORDS]
// [COLS / 32, M_STRIDE, 8], see epilogue_f16
@group(0) @binding(2) var<storage, read> x: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;       // [SPLITS, rows, Y_STRIDE]
@group(0) @binding(4) var<uniform> step: Step;

const TILE_M: u32 = 32u;
const TILE_N: u32 = 128u;
const PITCH: u32 = 40u; // for 32 halves, padded against bank conflicts
const BLOCKS: u32 = COLS / 32u;
const BLOCKS_PER_SPLIT: u32 = (BLOCKS + SPLITS - 1u) / SPLITS;
var<workgroup> w_tile: array<f16, TILE_N * PITCH>; // [n, k]
var<workgroup> x_tile: array<f16, 32u * PITCH>;    // [k, m]
var<workgroup> blocks: array<f32, 256>;            // one block of results per subgroup, first 0

// Writes four k of the weights to column 4 · at / PITCH, from k 4 · at % PITCH on.
fn put_weights(at: u32, values: vec4<f16>) {
    w_tile[4u * at] = values.x;
    w_tile[4u * at + 1u] = values.y;
    w_tile[4u * at + 2u] = values.z;
    w_tile[4u * at + 3u] = values.w;
}

// Writes four k of the activations. `i` is their number in the order of x.
fn put_x(i: u32, values: vec4<f16>) {
    let at = (i % 8u) * 4u * PITCH + i / 8u;
    x_tile[at] = values.x;
    x_tile[at + PITCH] = values.y;
    x_tile[at + 2u * PITCH] = values.z;
    x_tile[at + 3u * PITCH] = values.w;
}

// Writes a block of sums [n, m].
// A block that extends past the last column goes through the subgroup's part of `blocks`.
fn finish(sums: coop_mat8x8<f32, C>, n: u32, m: u32, split: u32, part: u32, lane: u32) {
    let at = split * SPLIT_STRIDE + m * Y_STRIDE + Y_OFFSET + n;
    if n + 8u <= ROWS && m < step.rows {
        coopStore(sums, &y[at], Y_STRIDE);
    }
    if ROWS % 8u > 0u {
        coopStore(sums, &blocks[part], 8u);
        workgroupBarrier();
        if n < ROWS && n + 8u > ROWS {
            for (var i = lane; i < 64u; i += 32u) {
                if n + i % 8u < ROWS && m + i / 8u < step.rows {
                    y[at + (i / 8u) * Y_STRIDE + i % 8u] = blocks[part + i];
                }
            }
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    prepare_weights(local, 128u);
    let first_m = group.x * TILE_M;
    let first_n = group.y * TILE_N;
    let sub_n = subgroup * 32u;
    // Weight rows past the end repeat the last one. Their results are not stored.
    let weight_row = FIRST_ROW + min(first_n + local, ROWS - 1u);
    // Metal does not define the value of a matrix without a load.
    blocks[local] = 0.0;
    blocks[local + 128u] = 0.0;
    workgroupBarrier();
    let part = subgroup * 64u;
    let zero = coopLoadT<coop_mat8x8<f32, C>>(&blocks[part], 8u);
    var c00 = zero;
    var c01 = zero;
    var c02 = zero;
    var c03 = zero;
    var c10 = zero;
    var c11 = zero;
    var c12 = zero;
    var c13 = zero;
    var c20 = zero;
    var c21 = zero;
    var c22 = zero;
    var c23 = zero;
    var c30 = zero;
    var c31 = zero;
    var c32 = zero;
    var c33 = zero;

    let first_block = group.z * BLOCKS_PER_SPLIT;
    let end_block = min(first_block + BLOCKS_PER_SPLIT, BLOCKS);
    // A split may have no blocks.
    let start = min(first_block, BLOCKS - 1u);
    var weights = load_weights(weight_row, start);
    var at_x = (start * M_STRIDE + first_m) * 8u + local;
    var x0 = x[at_x];
    var x1 = x[at_x + 128u];
    for (var block = first_block; block < end_block; block++) {
        put_x(local, x0);
        put_x(local + 128u, x1);
        write_weights(local * (PITCH / 4u), weights);
        workgroupBarrier();
        // The last iteration loads its own tiles again, which avoids a branch.
        let next = min(block + 1u, end_block - 1u);
        weights = load_weights(weight_row, next);
        at_x = (next * M_STRIDE + first_m) * 8u + local;
        x0 = x[at_x];
        x1 = x[at_x + 128u];
        for (var k = 0u; k < 32u; k += 8u) {
            let a0 = coopLoadT<coop_mat8x8<f16, A>>(&w_tile[(sub_n + 0u) * PITCH + k], PITCH);
            let a1 = coopLoadT<coop_mat8x8<f16, A>>(&w_tile[(sub_n + 8u) * PITCH + k], PITCH);
            let a2 = coopLoadT<coop_mat8x8<f16, A>>(&w_tile[(sub_n + 16u) * PITCH + k], PITCH);
            let a3 = coopLoadT<coop_mat8x8<f16, A>>(&w_tile[(sub_n + 24u) * PITCH + k], PITCH);
            let b0 = coopLoadT<coop_mat8x8<f16, B>>(&x_tile[k * PITCH + 0u], PITCH);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c20 = coopMultiplyAdd(a2, b0, c20);
            c30 = coopMultiplyAdd(a3, b0, c30);
            let b1 = coopLoadT<coop_mat8x8<f16, B>>(&x_tile[k * PITCH + 8u], PITCH);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c11 = coopMultiplyAdd(a1, b1, c11);
            c21 = coopMultiplyAdd(a2, b1, c21);
            c31 = coopMultiplyAdd(a3, b1, c31);
            let b2 = coopLoadT<coop_mat8x8<f16, B>>(&x_tile[k * PITCH + 16u], PITCH);
            c02 = coopMultiplyAdd(a0, b2, c02);
            c12 = coopMultiplyAdd(a1, b2, c12);
            c22 = coopMultiplyAdd(a2, b2, c22);
            c32 = coopMultiplyAdd(a3, b2, c32);
            let b3 = coopLoadT<coop_mat8x8<f16, B>>(&x_tile[k * PITCH + 24u], PITCH);
            c03 = coopMultiplyAdd(a0, b3, c03);
            c13 = coopMultiplyAdd(a1, b3, c13);
            c23 = coopMultiplyAdd(a2, b3, c23);
            c33 = coopMultiplyAdd(a3, b3, c33);
        }
        workgroupBarrier();
    }

    let n = first_n + sub_n;
    let m = first_m;
    finish(c00, n + 0u, m + 0u, group.z, part, lane);
    finish(c01, n + 0u, m + 8u, group.z, part, lane);
    finish(c02, n + 0u, m + 16u, group.z, part, lane);
    finish(c03, n + 0u, m + 24u, group.z, part, lane);
    finish(c10, n + 8u, m + 0u, group.z, part, lane);
    finish(c11, n + 8u, m + 8u, group.z, part, lane);
    finish(c12, n + 8u, m + 16u, group.z, part, lane);
    finish(c13, n + 8u, m + 24u, group.z, part, lane);
    finish(c20, n + 16u, m + 0u, group.z, part, lane);
    finish(c21, n + 16u, m + 8u, group.z, part, lane);
    finish(c22, n + 16u, m + 16u, group.z, part, lane);
    finish(c23, n + 16u, m + 24u, group.z, part, lane);
    finish(c30, n + 24u, m + 0u, group.z, part, lane);
    finish(c31, n + 24u, m + 8u, group.z, part, lane);
    finish(c32, n + 24u, m + 16u, group.z, part, lane);
    finish(c33, n + 24u, m + 24u, group.z, part, lane);
}
