//! needs: scales, step, weight_halves; constants COLS, FIRST_ROW, M_STRIDE, ROWS, SPLITS,
//! SPLIT_STRIDE, Y_OFFSET, Y_STRIDE; enables f16, wgpu_cooperative_matrix

// y[m, Y_OFFSET + n] = sum over k of weight[n, k] · x[m, k], on cooperative matrices.
// Inputs are f16 and sums f32.
// A workgroup of four subgroups computes 128 rows m × 128 columns n, in steps of 32 k.
// Each subgroup has 64 × 64 of these results.
// Tiles are written from registers to workgroup memory while the next ones are loaded.
// Where SPLITS > 1, workgroups divide k (split-K), and result s begins at SPLIT_STRIDE · s.
//
// Weights and activations are declared read_write, although the kernel only reads them.
// Drivers move loads from read-only buffers to other places.
// NVIDIA's driver moves them before the last use of the previous tile in registers.
// That takes many moves between registers: docs/performance.md has the cost.

// [FIRST_ROW + ROWS…, DATA_WORDS / 4]
@group(0) @binding(0) var<storage, read_write> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>;    // [ROWS, SCALE_WORDS]
// [COLS / 32, M_STRIDE, 8], see epilogue_f16
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [SPLITS, rows, Y_STRIDE]
@group(0) @binding(4) var<uniform> step: Step;

const TILE: u32 = 128u;
const PITCH: u32 = 10u; // vec4s for a row of 32 halves, padded against bank conflicts
const BLOCKS: u32 = COLS / 32u;
const BLOCKS_PER_SPLIT: u32 = (BLOCKS + SPLITS - 1u) / SPLITS;
var<workgroup> x_tile: array<vec4<f16>, TILE * PITCH>; // [m, k]
var<workgroup> w_tile: array<vec4<f16>, TILE * PITCH>; // [n, k]

fn put_weights(at: u32, values: vec4<f16>) {
    w_tile[at] = values;
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    prepare_weights(local, 128u);
    let first_m = group.x * TILE;
    let first_n = group.y * TILE;
    let sub_m = (subgroup / 2u) * 64u;
    let sub_n = (subgroup % 2u) * 64u;
    // Weight rows past the end repeat the last one. Their results are not stored.
    let weight_row = FIRST_ROW + min(first_n + local, ROWS - 1u);
    var c00 = coop_mat16x16<f32, C>();
    var c01 = coop_mat16x16<f32, C>();
    var c02 = coop_mat16x16<f32, C>();
    var c03 = coop_mat16x16<f32, C>();
    var c10 = coop_mat16x16<f32, C>();
    var c11 = coop_mat16x16<f32, C>();
    var c12 = coop_mat16x16<f32, C>();
    var c13 = coop_mat16x16<f32, C>();
    var c20 = coop_mat16x16<f32, C>();
    var c21 = coop_mat16x16<f32, C>();
    var c22 = coop_mat16x16<f32, C>();
    var c23 = coop_mat16x16<f32, C>();
    var c30 = coop_mat16x16<f32, C>();
    var c31 = coop_mat16x16<f32, C>();
    var c32 = coop_mat16x16<f32, C>();
    var c33 = coop_mat16x16<f32, C>();

    let first_block = group.z * BLOCKS_PER_SPLIT;
    let end_block = min(first_block + BLOCKS_PER_SPLIT, BLOCKS);
    var weights = load_weights(weight_row, first_block);
    var at_x = (first_block * M_STRIDE + first_m) * 8u + local;
    var x0 = x[at_x + 0u];
    var x1 = x[at_x + 128u];
    var x2 = x[at_x + 256u];
    var x3 = x[at_x + 384u];
    var x4 = x[at_x + 512u];
    var x5 = x[at_x + 640u];
    var x6 = x[at_x + 768u];
    var x7 = x[at_x + 896u];
    for (var block = first_block; block < end_block; block++) {
        x_tile[((local + 0u) / 8u) * PITCH + local % 8u] = x0;
        x_tile[((local + 128u) / 8u) * PITCH + local % 8u] = x1;
        x_tile[((local + 256u) / 8u) * PITCH + local % 8u] = x2;
        x_tile[((local + 384u) / 8u) * PITCH + local % 8u] = x3;
        x_tile[((local + 512u) / 8u) * PITCH + local % 8u] = x4;
        x_tile[((local + 640u) / 8u) * PITCH + local % 8u] = x5;
        x_tile[((local + 768u) / 8u) * PITCH + local % 8u] = x6;
        x_tile[((local + 896u) / 8u) * PITCH + local % 8u] = x7;
        write_weights(local * PITCH, weights);
        workgroupBarrier();
        // The last iteration loads its own tiles again, which avoids a branch.
        let next = min(block + 1u, end_block - 1u);
        weights = load_weights(weight_row, next);
        at_x = (next * M_STRIDE + first_m) * 8u + local;
        x0 = x[at_x + 0u];
        x1 = x[at_x + 128u];
        x2 = x[at_x + 256u];
        x3 = x[at_x + 384u];
        x4 = x[at_x + 512u];
        x5 = x[at_x + 640u];
        x6 = x[at_x + 768u];
        x7 = x[at_x + 896u];
        for (var k = 0u; k < 8u; k += 4u) {
            let a0 = coopLoadT<coop_mat16x16<f16, A>>(&x_tile[(sub_m + 0u) * PITCH + k], PITCH);
            let a1 = coopLoadT<coop_mat16x16<f16, A>>(&x_tile[(sub_m + 16u) * PITCH + k], PITCH);
            let a2 = coopLoadT<coop_mat16x16<f16, A>>(&x_tile[(sub_m + 32u) * PITCH + k], PITCH);
            let a3 = coopLoadT<coop_mat16x16<f16, A>>(&x_tile[(sub_m + 48u) * PITCH + k], PITCH);
            let b0 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[(sub_n + 0u) * PITCH + k], PITCH);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c20 = coopMultiplyAdd(a2, b0, c20);
            c30 = coopMultiplyAdd(a3, b0, c30);
            let b1 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[(sub_n + 16u) * PITCH + k], PITCH);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c11 = coopMultiplyAdd(a1, b1, c11);
            c21 = coopMultiplyAdd(a2, b1, c21);
            c31 = coopMultiplyAdd(a3, b1, c31);
            let b2 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[(sub_n + 32u) * PITCH + k], PITCH);
            c02 = coopMultiplyAdd(a0, b2, c02);
            c12 = coopMultiplyAdd(a1, b2, c12);
            c22 = coopMultiplyAdd(a2, b2, c22);
            c32 = coopMultiplyAdd(a3, b2, c32);
            let b3 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[(sub_n + 48u) * PITCH + k], PITCH);
            c03 = coopMultiplyAdd(a0, b3, c03);
            c13 = coopMultiplyAdd(a1, b3, c13);
            c23 = coopMultiplyAdd(a2, b3, c23);
            c33 = coopMultiplyAdd(a3, b3, c33);
        }
        workgroupBarrier();
    }

    let m = first_m + sub_m;
    let n = first_n + sub_n;
    let at = group.z * SPLIT_STRIDE + m * Y_STRIDE + Y_OFFSET + n;
    if m + 0u < step.rows {
        if n + 0u < ROWS { coopStoreT(c00, &y[at + 0u * Y_STRIDE + 0u], Y_STRIDE); }
        if n + 16u < ROWS { coopStoreT(c01, &y[at + 0u * Y_STRIDE + 16u], Y_STRIDE); }
        if n + 32u < ROWS { coopStoreT(c02, &y[at + 0u * Y_STRIDE + 32u], Y_STRIDE); }
        if n + 48u < ROWS { coopStoreT(c03, &y[at + 0u * Y_STRIDE + 48u], Y_STRIDE); }
    }
    if m + 16u < step.rows {
        if n + 0u < ROWS { coopStoreT(c10, &y[at + 16u * Y_STRIDE + 0u], Y_STRIDE); }
        if n + 16u < ROWS { coopStoreT(c11, &y[at + 16u * Y_STRIDE + 16u], Y_STRIDE); }
        if n + 32u < ROWS { coopStoreT(c12, &y[at + 16u * Y_STRIDE + 32u], Y_STRIDE); }
        if n + 48u < ROWS { coopStoreT(c13, &y[at + 16u * Y_STRIDE + 48u], Y_STRIDE); }
    }
    if m + 32u < step.rows {
        if n + 0u < ROWS { coopStoreT(c20, &y[at + 32u * Y_STRIDE + 0u], Y_STRIDE); }
        if n + 16u < ROWS { coopStoreT(c21, &y[at + 32u * Y_STRIDE + 16u], Y_STRIDE); }
        if n + 32u < ROWS { coopStoreT(c22, &y[at + 32u * Y_STRIDE + 32u], Y_STRIDE); }
        if n + 48u < ROWS { coopStoreT(c23, &y[at + 32u * Y_STRIDE + 48u], Y_STRIDE); }
    }
    if m + 48u < step.rows {
        if n + 0u < ROWS { coopStoreT(c30, &y[at + 48u * Y_STRIDE + 0u], Y_STRIDE); }
        if n + 16u < ROWS { coopStoreT(c31, &y[at + 48u * Y_STRIDE + 16u], Y_STRIDE); }
        if n + 32u < ROWS { coopStoreT(c32, &y[at + 48u * Y_STRIDE + 32u], Y_STRIDE); }
        if n + 48u < ROWS { coopStoreT(c33, &y[at + 48u * Y_STRIDE + 48u], Y_STRIDE); }
    }
}
