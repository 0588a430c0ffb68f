//! needs: epilogue; constants EMIT_COLS, WORKGROUP
// Activations in another form: see the fragment that defines `emit`.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // [rows, EMIT_COLS / 4]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var first = 0u; first < EMIT_COLS / 4u; first += WORKGROUP) {
        let four = first + local;
        // Reads past the end repeat the row's last values.
        emit(group.x, four, x[group.x * (EMIT_COLS / 4u) + min(four, EMIT_COLS / 4u - 1u)], local);
    }
}
