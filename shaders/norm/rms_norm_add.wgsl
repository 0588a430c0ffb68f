//! needs: sublayer_output, epilogue, reduce; constants EPILOGUE_COLS, SCALE, WORKGROUP

// The addition of a sublayer output to the residual stream.
// The next product takes the residual stream itself, scaled:
//   x[row] = x[row] + rms_norm(branch[row]) · post_weight
//   out[row] = x[row] · SCALE
// Columns past N are zero, in the weight too.

@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;     // [rows, EPILOGUE_COLS / 4]
// [PARTS, rows, EPILOGUE_COLS / 4]: to be summed
@group(0) @binding(1) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> post_weight: array<vec4<f32>>; // [N / 4]

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let base = group.x * (EPILOGUE_COLS / 4u);
    let factor = branch_factor(base, local);
    for (var first = 0u; first < EPILOGUE_COLS / 4u; first += WORKGROUP) {
        let i = first + local;
        var values = vec4<f32>();
        if i < VEC4S {
            values = x[base + i] + branch_at(base + i) * factor * post_weight[i];
            x[base + i] = values;
        }
        epilogue(group.x, i, values * SCALE, local);
    }
}
