//! needs: q8_lanes; constants EMIT, EMIT_COLS
// Results as int8 in groups of 32 values, see q8_lanes.wgsl.

@group(0) @binding(EMIT) var<storage, read_write> quants: array<u32>;             // [rows, EMIT_COLS / 4], four int8 a word
@group(0) @binding(EMIT + 1) var<storage, read_write> quant_groups: array<vec2<f32>>; // [rows, EMIT_COLS / 32]: s, s · sum

// Eight neighbouring invocations have a group. Call in uniform control flow with `four` = local
// modulo 8; columns past the end are not written.
fn emit(row: u32, four: u32, values: vec4<f32>, local: u32) {
    let q8 = quantize_lanes(values);
    if four < EMIT_COLS / 4u {
        quants[row * (EMIT_COLS / 4u) + four] = q8.word;
        if local % 8u == 0u {
            quant_groups[row * (EMIT_COLS / 32u) + four / 8u] = q8.group;
        }
    }
}
