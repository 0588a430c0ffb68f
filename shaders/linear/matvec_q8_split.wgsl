//! needs: finish, scales, step, weight_groups; constants COLS, K_SPLIT, LANES, M, OVER_OUTPUTS, R,
//! ROWS, SUBGROUP, WORKGROUP, Y_OFFSET, Y_STRIDE

// y[m, Y_OFFSET + n] = finish(sum over k of weight[n, k] · x[m, k]) for M rows of int8 activations.
// The device's subgroups must all have SUBGROUP invocations.
// LANES of them share R weight rows, and each takes groups of 32 columns.
// The workgroup's K_SPLIT subgroups share the columns. Weights are read once for all M rows.

@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;      // [ROWS, DATA_WORDS / 4]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>;    // [ROWS, SCALE_WORDS]
// [rows, COLS / 16], 16 int8 in each
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
// [rows, COLS / 32]: scale, scale · sum
@group(0) @binding(3) var<storage, read> x_groups: array<vec2<f32>>;
@group(0) @binding(4) var<uniform> step: Step;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;         // [rows, Y_STRIDE]

const CLUSTERS: u32 = SUBGROUP / LANES;
const GROUPS: u32 = COLS / 32u;
const ROWS_PER_WORKGROUP: u32 = CLUSTERS * R;
var<workgroup> partial_sums: array<f32, K_SPLIT * ROWS_PER_WORKGROUP * M>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) part: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    prepare_weights(local, WORKGROUP);
    let lane = invocation % LANES;
    let subgroup = invocation / LANES;
    let block_row = (group.x + group.y * groups.x) * ROWS_PER_WORKGROUP;
    let first = block_row + subgroup * R;
    let rows = select(step.rows, step.outputs, OVER_OUTPUTS);
    var sums = array<f32, R * M>();
    for (var g = part * LANES + lane; g < GROUPS; g += K_SPLIT * LANES) {
        var weights = array<GroupWeights, R>();
        for (var r = 0u; r < R; r++) {
            // Weight rows past the end repeat the last one. Their results are not stored.
            weights[r] = load_group(min(first + r, ROWS - 1u), g);
        }
        for (var m = 0u; m < M; m++) {
            // The same applies to activation rows.
            let x_row = min(m, rows - 1u);
            let at = x_row * (COLS / 16u) + g * 2u;
            let lo = x[at];
            let hi = x[at + 1u];
            let x_group = x_groups[x_row * GROUPS + g];
            for (var r = 0u; r < R; r++) {
                sums[r * M + m] += product(weights[r], lo, hi, x_group);
            }
        }
    }
    for (var i = 0u; i < R * M; i++) {
        for (var distance = LANES / 2u; distance > 0u; distance >>= 1u) {
            sums[i] += subgroupShuffleXor(sums[i], distance);
        }
    }
    if lane == 0u {
        for (var i = 0u; i < R * M; i++) {
            partial_sums[(part * CLUSTERS + subgroup) * (R * M) + i] = sums[i];
        }
    }
    workgroupBarrier();
    if local < ROWS_PER_WORKGROUP * M {
        var sum = 0.0;
        for (var i = 0u; i < K_SPLIT; i++) {
            sum += partial_sums[i * ROWS_PER_WORKGROUP * M + local];
        }
        let row = block_row + local / M;
        let m = local % M;
        if row < ROWS && m < rows {
            y[m * Y_STRIDE + Y_OFFSET + row] = finish(sum);
        }
    }
}
