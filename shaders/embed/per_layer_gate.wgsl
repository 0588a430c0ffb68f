//! needs: epilogue, gelu; constants GATE_SCALE, IN_STRIDE, N, VECTORS_STRIDE, WORKGROUP

// out[row, i] = gelu(gate[row, i] · GATE_SCALE) · vector[row, i].
// The vector of a layer is a part of the vectors of all layers.

@group(0) @binding(0) var<storage, read> gate: array<f32>;    // [rows, IN_STRIDE]
@group(0) @binding(1) var<storage, read> vectors: array<f32>; // [rows, VECTORS_STRIDE]
// x: the first column of the layer's vector
@group(0) @binding(2) var<uniform> place: vec4<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i4 = group.y * WORKGROUP + local;
    // Columns past the end are zero.
    var values = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        let col = i4 * 4u + i;
        if col < N {
            let vector = vectors[group.x * VECTORS_STRIDE + place.x + col];
            values[i] = gelu_tanh(gate[group.x * IN_STRIDE + col] * GATE_SCALE) * vector;
        }
    }
    epilogue(group.x, i4, values, local);
}
