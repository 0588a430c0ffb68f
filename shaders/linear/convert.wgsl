//! needs: epilogue; constants EPILOGUE_COLS, WORKGROUP

// Converts activations to another format. A fragment defines `epilogue`, which writes them.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // [rows, EPILOGUE_COLS / 4]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var first = 0u; first < EPILOGUE_COLS / 4u; first += WORKGROUP) {
        let i4 = first + local;
        // Reads past the end repeat the row's last values.
        epilogue(
            group.x,
            i4,
            x[group.x * (EPILOGUE_COLS / 4u) + min(i4, EPILOGUE_COLS / 4u - 1u)],
            local,
        );
    }
}
