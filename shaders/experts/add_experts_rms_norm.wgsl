//! needs: sublayer_output, epilogue, reduce; constants EPILOGUE_COLS, EPS, N, TOP_K, WORKGROUP

// The end of a layer with experts, and the norm of the next sublayer:
//   sum[row] = Σ over the row's pairs of weight · results[pair]
//   both[row] = rms_norm(branch[row]) · norms[0] + rms_norm(sum[row]) · norms[1]
//   x[row] = (x[row] + rms_norm(both[row]) · norms[2]) · scalar
//   out[row] = rms_norm(x[row]) · next_weight
// Columns past N are zero, in the weights too.

// [rows, EPILOGUE_COLS / 4]
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
// [PARTS, rows, EPILOGUE_COLS / 4]: the MLP's output, to be summed
@group(0) @binding(1) var<storage, read> branch: array<vec4<f32>>;
// [rows, TOP_K, EPILOGUE_COLS / 4]: the sum of a row is stored in its first pair's place
@group(0) @binding(2) var<storage, read_write> results: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;              // [rows, TOP_K]
// [3, N / 4], then the scalar
@group(0) @binding(4) var<storage, read> norms: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> next_weight: array<vec4<f32>>;    // [N / 4]

const ROW: u32 = EPILOGUE_COLS / 4u;

fn norm_factor(squares: f32, local: u32) -> f32 {
    return inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let base = group.x * ROW;
    let first_pair = group.x * TOP_K;
    let factor_of_branch = branch_factor(base, local);
    var squares = 0.0;
    for (var i = local; i < VEC4S; i += WORKGROUP) {
        var sum = vec4<f32>();
        for (var pair = first_pair; pair < first_pair + TOP_K; pair++) {
            sum += weights[pair] * results[pair * ROW + i];
        }
        // An invocation reads only the columns that it has written.
        results[first_pair * ROW + i] = sum;
        squares += dot(sum, sum);
    }
    let factor_of_experts = norm_factor(squares, local);
    squares = 0.0;
    for (var i = local; i < VEC4S; i += WORKGROUP) {
        let both = branch_at(base + i) * factor_of_branch * norms[i]
            + results[first_pair * ROW + i] * factor_of_experts * norms[VEC4S + i];
        results[first_pair * ROW + i] = both;
        squares += dot(both, both);
    }
    let factor_of_both = norm_factor(squares, local);
    squares = 0.0;
    for (var i = local; i < VEC4S; i += WORKGROUP) {
        let both = results[first_pair * ROW + i] * factor_of_both * norms[2u * VEC4S + i];
        let sum = (x[base + i] + both) * norms[3u * VEC4S].x;
        x[base + i] = sum;
        squares += dot(sum, sum);
    }
    let factor = norm_factor(squares, local);
    for (var first = 0u; first < ROW; first += WORKGROUP) {
        let i = first + local;
        var values = vec4<f32>();
        if i < VEC4S {
            values = x[base + i] * factor * next_weight[i];
        }
        epilogue(group.x, i, values, local);
    }
}
