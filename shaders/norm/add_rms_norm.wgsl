//! needs: sublayer_output, epilogue, reduce; constants EPILOGUE_COLS, EPS, N, WORKGROUP

// The addition of a sublayer output to the residual stream, and the norm of the next sublayer:
//   x[row] = (x[row] + rms_norm(branch[row]) · post_weight) · scalar
//   out[row] = rms_norm(x[row]) · next_weight
// Columns past N are zero, in the weights too.

// [rows, EPILOGUE_COLS / 4]
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
// [PARTS, rows, EPILOGUE_COLS / 4]: to be summed
@group(0) @binding(1) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> post_weight: array<vec4<f32>>;    // [N / 4]
@group(0) @binding(3) var<storage, read> next_weight: array<vec4<f32>>;    // [N / 4]
@group(0) @binding(4) var<uniform> layer: vec4<f32>;                       // x: scalar

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let base = group.x * (EPILOGUE_COLS / 4u);
    let factor_of_branch = branch_factor(base, local);
    var squares = 0.0;
    for (var i = local; i < VEC4S; i += WORKGROUP) {
        let sum = (x[base + i] + branch_at(base + i) * factor_of_branch * post_weight[i]) * layer.x;
        x[base + i] = sum;
        squares += dot(sum, sum);
    }
    let factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    for (var first = 0u; first < EPILOGUE_COLS / 4u; first += WORKGROUP) {
        let i = first + local;
        var values = vec4<f32>();
        if i < VEC4S {
            values = x[base + i] * factor * next_weight[i];
        }
        epilogue(group.x, i, values, local);
    }
}
