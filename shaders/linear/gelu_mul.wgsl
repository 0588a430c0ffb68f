//! needs: epilogue, gelu, up; constants IN_STRIDE, N, WORKGROUP

// out[row, i] = gelu(gate[row, i]) · up[row, i]. A fragment defines `up_of`.

// [rows, IN_STRIDE]: gate [N], up [N]
@group(0) @binding(0) var<storage, read> gate_up: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i4 = group.y * WORKGROUP + local;
    let base = group.x * IN_STRIDE;
    // Columns past the end are zero.
    var values = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        let col = i4 * 4u + i;
        if col < N {
            values[i] = gelu_tanh(gate_up[base + col]) * up_of(group.x, col);
        }
    }
    epilogue(group.x, i4, values, local);
}
