//! needs: finish, scales, step, weight_halves; constants COLS, COLUMN_TEAMS, M, OVER_OUTPUTS, ROWS,
//! SPLITS, SPLIT_STRIDE, SUBGROUP_ROWS, WORKGROUP, Y_OFFSET, Y_STRIDE; enables f16,
//! wgpu_cooperative_matrix

// y[m, Y_OFFSET + n] = finish(sum over k of weight[n, k] · x[m, k]) for at most M rows m.
// It runs on cooperative matrices. Inputs are f16 and sums f32.
// All rows share one read of the weights.
// A subgroup computes M rows m × SUBGROUP_ROWS columns n, for BLOCKS_EACH blocks of 32 k at once.
// So each invocation unpacks 32 weights of one row.
// COLUMN_TEAMS subgroups divide k for the same n, and so do SPLITS workgroups (split-K).
// The sums of subgroups are added here. Result s of a split begins at SPLIT_STRIDE · s.
//
// Weights and activations are declared read_write for the reason in matmul_coop.wgsl.

@group(0) @binding(0) var<storage, read_write> data: array<vec4<u32>>; // [ROWS, DATA_WORDS / 4]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>;     // [ROWS, SCALE_WORDS]
// [COLS / 32, M, 8], see epilogue_f16
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;          // [SPLITS, rows, Y_STRIDE]
@group(0) @binding(4) var<uniform> step: Step;

const PITCH: u32 = 10u; // vec4s for a row of 32 halves, padded against bank conflicts
const BLOCKS: u32 = COLS / 32u;
const BLOCKS_PER_SPLIT: u32 = (BLOCKS + SPLITS - 1u) / SPLITS;
const BLOCKS_EACH: u32 = 32u / SUBGROUP_ROWS;
const BLOCKS_AT_ONCE: u32 = COLUMN_TEAMS * BLOCKS_EACH;
const ROW_TEAMS: u32 = WORKGROUP / 32u / COLUMN_TEAMS;
const TILE: u32 = ROW_TEAMS * SUBGROUP_ROWS; // columns n of a workgroup
const SUMS_PITCH: u32 = TILE + 4u;
// [subgroup, BLOCKS_EACH, SUBGROUP_ROWS, k]
var<workgroup> w_tile: array<vec4<f16>, WORKGROUP * PITCH>;
var<workgroup> sums: array<f32, COLUMN_TEAMS * 16u * SUMS_PITCH>; // [COLUMN_TEAMS, m, n]

fn put_weights(at: u32, values: vec4<f16>) {
    w_tile[at] = values;
}

// Writes the results of 16 rows from `first_m` on, as sums over the teams.
fn write_sums(first_m: u32, group: vec3<u32>, local: u32) {
    workgroupBarrier();
    let rows = select(step.rows, step.outputs, OVER_OUTPUTS);
    for (var i = local; i < 16u * TILE; i += WORKGROUP) {
        let at = (i / TILE) * SUMS_PITCH + i % TILE;
        var sum = sums[at];
        for (var team = 1u; team < COLUMN_TEAMS; team++) {
            sum += sums[team * 16u * SUMS_PITCH + at];
        }
        let m = first_m + i / TILE;
        let n = group.x * TILE + i % TILE;
        if m < rows && n < ROWS {
            y[group.z * SPLIT_STRIDE + m * Y_STRIDE + Y_OFFSET + n] = finish(sum);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    prepare_weights(local, WORKGROUP);
    let row_team = subgroup % ROW_TEAMS;
    let column_team = subgroup / ROW_TEAMS;
    let n = group.x * TILE + row_team * SUBGROUP_ROWS + lane % SUBGROUP_ROWS;
    // Weight rows past the end repeat the last one. Their results are not stored.
    let weight_row = min(n, ROWS - 1u);
    let team_block = column_team * BLOCKS_EACH;
    let own_block = team_block + lane / SUBGROUP_ROWS;
    let own_tile = (subgroup * 32u + lane) * PITCH;
    var c00 = coop_mat16x16<f32, C>();
    var c01 = coop_mat16x16<f32, C>();
    var c10 = coop_mat16x16<f32, C>();
    var c11 = coop_mat16x16<f32, C>();
    var c20 = coop_mat16x16<f32, C>();
    var c21 = coop_mat16x16<f32, C>();
    var c30 = coop_mat16x16<f32, C>();
    var c31 = coop_mat16x16<f32, C>();

    let first_block = group.z * BLOCKS_PER_SPLIT;
    let end_block = min(first_block + BLOCKS_PER_SPLIT, BLOCKS);
    var weights = load_weights(weight_row, min(first_block + own_block, end_block - 1u));
    for (var block = first_block; block < end_block; block += BLOCKS_AT_ONCE) {
        write_weights(own_tile, weights);
        // Blocks past the end count as zeros, since all subgroups must multiply.
        if BLOCKS_AT_ONCE > 1u && block + own_block >= end_block {
            for (var i = 0u; i < 8u; i++) {
                put_weights(own_tile + i, vec4<f16>());
            }
        }
        workgroupBarrier();
        // The last iteration loads weights again, which avoids a branch.
        let next = min(block + BLOCKS_AT_ONCE + own_block, end_block - 1u);
        weights = load_weights(weight_row, next);
        for (var j = 0u; j < BLOCKS_EACH; j++) {
            let w_at = (subgroup * 32u + j * SUBGROUP_ROWS) * PITCH;
            let x_at = min(block + team_block + j, end_block - 1u) * M * 8u;
            for (var k = 0u; k < 8u; k += 4u) {
                let b0 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[w_at + k], PITCH);
                var b1 = b0;
                if SUBGROUP_ROWS > 16u {
                    b1 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[w_at + 16u * PITCH + k], PITCH);
                }
                let a0 = coopLoadT<coop_mat16x16<f16, A>>(&x[x_at + k], 8u);
                c00 = coopMultiplyAdd(a0, b0, c00);
                if SUBGROUP_ROWS > 16u {
                    c01 = coopMultiplyAdd(a0, b1, c01);
                }
                if M > 16u {
                    let a1 = coopLoadT<coop_mat16x16<f16, A>>(&x[x_at + 128u + k], 8u);
                    c10 = coopMultiplyAdd(a1, b0, c10);
                    if SUBGROUP_ROWS > 16u {
                        c11 = coopMultiplyAdd(a1, b1, c11);
                    }
                }
                if M > 32u {
                    let a2 = coopLoadT<coop_mat16x16<f16, A>>(&x[x_at + 256u + k], 8u);
                    let a3 = coopLoadT<coop_mat16x16<f16, A>>(&x[x_at + 384u + k], 8u);
                    c20 = coopMultiplyAdd(a2, b0, c20);
                    c30 = coopMultiplyAdd(a3, b0, c30);
                    if SUBGROUP_ROWS > 16u {
                        c21 = coopMultiplyAdd(a2, b1, c21);
                        c31 = coopMultiplyAdd(a3, b1, c31);
                    }
                }
            }
        }
        workgroupBarrier();
    }

    let at = column_team * 16u * SUMS_PITCH + row_team * SUBGROUP_ROWS;
    coopStoreT(c00, &sums[at], SUMS_PITCH);
    if SUBGROUP_ROWS > 16u { coopStoreT(c01, &sums[at + 16u], SUMS_PITCH); }
    write_sums(0u, group, local);
    if M > 16u {
        coopStoreT(c10, &sums[at], SUMS_PITCH);
        if SUBGROUP_ROWS > 16u { coopStoreT(c11, &sums[at + 16u], SUMS_PITCH); }
        write_sums(16u, group, local);
    }
    if M > 32u {
        coopStoreT(c20, &sums[at], SUMS_PITCH);
        if SUBGROUP_ROWS > 16u { coopStoreT(c21, &sums[at + 16u], SUMS_PITCH); }
        write_sums(32u, group, local);
        coopStoreT(c30, &sums[at], SUMS_PITCH);
        if SUBGROUP_ROWS > 16u { coopStoreT(c31, &sums[at + 16u], SUMS_PITCH); }
        write_sums(48u, group, local);
    }
}
