//! needs: constants EMIT, EMIT_COLS
// Results as they are: [rows, EMIT_COLS] f32.

@group(0) @binding(EMIT) var<storage, read_write> out: array<vec4<f32>>; // [rows, EMIT_COLS / 4]

fn emit(row: u32, four: u32, values: vec4<f32>, local: u32) {
    if four < EMIT_COLS / 4u {
        out[row * (EMIT_COLS / 4u) + four] = values;
    }
}
