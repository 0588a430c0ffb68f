//! needs: scales, step, weight_groups; constants COLS, M, OVER_OUTPUTS, ROWS, SPLITS, STACK, SUMS,
//! TILES, WORKGROUP

// sum over k of weight[n, k] · x[m, k] for M rows of int8 activations.
// The weights are interleaved (weight_layout.wgsl) and read once for all M rows.
//
// A workgroup computes TILES · STACK tiles of 16 weight rows.
// 16 neighbouring invocations have one row each of STACK tiles.
// So activations are loaded once for these tiles.
// PARTS such sets of 16 invocations divide a tile's columns, in groups of 32.
// Where SPLITS > 1, workgroups divide the columns too.
//
// The file that needs this fragment defines `first_row`, which chooses the tiles, and `store`.

// [ROWS / 16, DATA_WORDS / 4, 16]
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
// [ROWS / 16, SCALE_WORDS, 16]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>;
// [M, COLS / 16], 16 int8 in each
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
// [M, COLS / 32]: scale, scale · sum
@group(0) @binding(3) var<storage, read> x_groups: array<vec2<f32>>;
@group(0) @binding(4) var<uniform> step: Step;

const GROUPS: u32 = COLS / 32u;
const PARTS: u32 = WORKGROUP / 16u / TILES;
const TILE_ROWS: u32 = TILES * STACK * 16u;
var<workgroup> partial_sums: array<f32, PARTS * M * TILE_ROWS>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    prepare_weights(local, WORKGROUP);
    let lane = local % 16u;
    let part = local / 16u % PARTS;
    let tile = local / 16u / PARTS;
    let block = group.x + group.y * groups.x;
    if block * TILE_ROWS >= ROWS {
        return;
    }
    // Tiles past the end repeat the last one, and their results are not stored.
    // Activation rows past the end have any values, and their sums are not stored.
    // To clamp them, M addresses would depend on the number of rows.
    // Such addresses take longer than the loads.
    var weight_rows = array<u32, STACK>();
    for (var s = 0u; s < STACK; s++) { // unrolled
        weight_rows[s] = min(first_row(block, tile * STACK + s), ROWS - 16u) + lane;
    }
    let rows = select(step.rows, step.outputs, OVER_OUTPUTS);
    var sums = array<f32, SUMS>();
    let end = (group.z + 1u) * GROUPS / SPLITS;
    for (var g = group.z * GROUPS / SPLITS + part; g < end; g += PARTS) {
        var weights = array<GroupWeights, STACK>();
        for (var s = 0u; s < STACK; s++) { // unrolled
            weights[s] = load_group(weight_rows[s], g);
        }
        for (var m = 0u; m < M; m++) { // unrolled
            let at = m * (COLS / 16u) + g * 2u;
            let lo = x[at];
            let hi = x[at + 1u];
            let x_group = x_groups[m * GROUPS + g];
            for (var s = 0u; s < STACK; s++) { // unrolled
                sums[m * STACK + s] += product(weights[s], lo, hi, x_group);
            }
        }
    }
    for (var m = 0u; m < M; m++) { // unrolled
        for (var s = 0u; s < STACK; s++) { // unrolled
            partial_sums[((part * M + m) * TILES + tile) * STACK * 16u + s * 16u
                + lane] = sums[m * STACK + s];
        }
    }
    workgroupBarrier();
    for (var i = local; i < M * TILE_ROWS; i += WORKGROUP) {
        var sum = 0.0;
        for (var p = 0u; p < PARTS; p++) {
            sum += partial_sums[p * M * TILE_ROWS + i];
        }
        store(vec2<u32>(block, group.z), i / TILE_ROWS, i % TILE_ROWS, sum, rows);
    }
    conclude(block, rows, local);
}
