//! needs: finish, scales, step, weight_halves; constants COLS, COLUMN_TEAMS, M_TILES, OVER_OUTPUTS,
//! PASSES, ROWS, SPLITS, SPLIT_STRIDE, WORKGROUP, Y_OFFSET, Y_STRIDE; enables f16,
//! wgpu_cooperative_matrix

// y[m, Y_OFFSET + n] = finish(sum over k of weight[n, k] · x[m, k]) for at most M rows m.
// It runs on cooperative matrices. Inputs are f16 and sums f32.
// All rows share one read of the weights.
// A subgroup computes M rows m × PASSES · 32 columns n. It takes a block of 32 k at a time.
// In a pass, each invocation unpacks the block of one weight row to workgroup memory.
// Only its own subgroup reads it, so subgroups need not wait for one another.
// COLUMN_TEAMS subgroups divide k for the same n, and so do SPLITS workgroups (split-K).
// The sums of subgroups are added here. Result s of a split begins at SPLIT_STRIDE · s.
//
// Loads return in the order of their requests.
// So a block's activations are requested with its weights, a step before both are used.
//
// naga's subgroupBarrier orders workgroup memory in Metal, but not by Vulkan's memory model.
// NVIDIA's driver keeps a subgroup's accesses to its own patch in order, as the tests show.

@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;       // [ROWS, DATA_WORDS / 4]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>;     // [ROWS, SCALE_WORDS]
// [COLS / 16, M, 4], see epilogue_f16
@group(0) @binding(2) var<storage, read> x: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;          // [SPLITS, rows, Y_STRIDE]
@group(0) @binding(4) var<uniform> step: Step;

const M: u32 = M_TILES * 16u;
const PITCH: u32 = 10u; // vec4s for a row of 32 halves, padded against bank conflicts
const BLOCKS: u32 = COLS / 32u;
const BLOCKS_PER_SPLIT: u32 = (BLOCKS + SPLITS - 1u) / SPLITS;
const STEPS: u32 = (BLOCKS_PER_SPLIT + COLUMN_TEAMS - 1u) / COLUMN_TEAMS;
const ROW_TEAMS: u32 = WORKGROUP / 32u / COLUMN_TEAMS;
const SUBGROUP_ROWS: u32 = PASSES * 32u;
const A_TILES: u32 = M_TILES * 2u;
var<workgroup> w_tile: array<vec4<f16>, WORKGROUP * PITCH>;       // [subgroup, weight row, k]
var<workgroup> sums: array<f32, WORKGROUP / 32u * M * 16u>;       // [subgroup, m, n]

fn put_weights(at: u32, values: vec4<f16>) {
    w_tile[at] = values;
}

// Writes the results of 16 columns of each team of rows, as sums over the teams of columns.
fn write_sums(first_n: u32, group: vec3<u32>, local: u32) {
    let rows = select(step.rows, step.outputs, OVER_OUTPUTS);
    for (var i = local; i < ROW_TEAMS * M * 16u; i += WORKGROUP) {
        var sum = sums[i];
        for (var team = 1u; team < COLUMN_TEAMS; team++) {
            sum += sums[team * ROW_TEAMS * M * 16u + i];
        }
        let m = i / 16u % M;
        let n = (group.x * ROW_TEAMS + i / (M * 16u)) * SUBGROUP_ROWS + first_n + i % 16u;
        if m < rows && n < ROWS {
            y[group.z * SPLIT_STRIDE + m * Y_STRIDE + Y_OFFSET + n] = finish(sum);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    prepare_weights(local, WORKGROUP);
    let patch_at = subgroup * 32u * PITCH;
    let first_n = (group.x * ROW_TEAMS + subgroup % ROW_TEAMS) * SUBGROUP_ROWS;
    let first_block = group.z * BLOCKS_PER_SPLIT;
    let end_block = min(first_block + BLOCKS_PER_SPLIT, BLOCKS);
    var block = first_block + subgroup / ROW_TEAMS;
    var next = min(block, end_block - 1u);
    // Weight rows past the end repeat the last one. Their results are not stored.
    var weight_rows = array<u32, PASSES>();
    var weights = array<BlockWeights, PASSES>();
    for (var pass = 0u; pass < PASSES; pass++) { // unrolled
        weight_rows[pass] = min(first_n + pass * 32u + lane, ROWS - 1u);
        weights[pass] = load_weights(weight_rows[pass], next);
    }
    var c = array<coop_mat16x16<f32, C>, M_TILES * PASSES * 2u>();
    var a = array<coop_mat16x16<f16, A>, A_TILES>();
    for (var m = 0u; m < M_TILES; m++) { // unrolled
        for (var k = 0u; k < 2u; k++) { // unrolled
            a[m * 2u + k] = coopLoadT<coop_mat16x16<f16, A>>(
                &x[((next * 2u + k) * M + m * 16u) * 4u], 4u
            );
        }
    }
    for (var i = 0u; i < STEPS; i++) {
        // Blocks past the end count as zeros, since all subgroups must multiply.
        let counts = f32(block < end_block);
        block += COLUMN_TEAMS;
        next = min(block, end_block - 1u);
        var held_a = array<coop_mat16x16<f16, A>, A_TILES>();
        var held = array<BlockWeights, PASSES>();
        for (var m = 0u; m < M_TILES; m++) { // unrolled
            for (var k = 0u; k < 2u; k++) { // unrolled
                held_a[m * 2u + k] = a[m * 2u + k];
                a[m * 2u + k] = coopLoadT<coop_mat16x16<f16, A>>(
                    &x[((next * 2u + k) * M + m * 16u) * 4u], 4u
                );
            }
        }
        for (var pass = 0u; pass < PASSES; pass++) { // unrolled
            held[pass] = weights[pass];
            weights[pass] = load_weights(weight_rows[pass], next);
        }
        for (var pass = 0u; pass < PASSES; pass++) { // unrolled
            held[pass].scale *= counts;
            write_weights(patch_at + lane * PITCH, held[pass]);
            subgroupBarrier();
            for (var k = 0u; k < 2u; k++) { // unrolled
                for (var n = 0u; n < 2u; n++) { // unrolled
                    let b = coopLoad<coop_mat16x16<f16, B>>(
                        &w_tile[patch_at + n * 16u * PITCH + k * 4u], PITCH
                    );
                    for (var m = 0u; m < M_TILES; m++) { // unrolled
                        c[(pass * 2u + n) * M_TILES + m] = coopMultiplyAdd(
                            held_a[m * 2u + k], b, c[(pass * 2u + n) * M_TILES + m]
                        );
                    }
                }
            }
            subgroupBarrier();
        }
    }

    for (var tile = 0u; tile < PASSES; tile++) { // unrolled
        for (var n = 0u; n < 2u; n++) { // unrolled
            for (var m = 0u; m < M_TILES; m++) { // unrolled
                coopStoreT(
                    c[(tile * 2u + n) * M_TILES + m], &sums[(subgroup * M + m * 16u) * 16u], 16u
                );
            }
            workgroupBarrier();
            write_sums((tile * 2u + n) * 16u, group, local);
            workgroupBarrier();
        }
    }
}
