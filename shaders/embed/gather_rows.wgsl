//! needs: constants COLS, WORKGROUP

// out[i] = x[outputs[i]], where outputs are the rows whose logits are needed.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;          // [rows, COLS / 4]
@group(0) @binding(1) var<storage, read> outputs: array<u32>;          // [outputs]
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;  // [outputs, COLS / 4]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var i = local; i < COLS / 4u; i += WORKGROUP) {
        out[group.x * (COLS / 4u) + i] = x[outputs[group.x] * (COLS / 4u) + i];
    }
}
