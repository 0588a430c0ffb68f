// Results as int8: each group of 32 values becomes round(x / s) with s = max|x| / 127. For subgroups of neighbours, of whole
// eights.

@group(0) @binding(EMIT) var<storage, read_write> quants: array<u32>;             // [rows, EMIT_COLS / 4], four int8 a word
@group(0) @binding(EMIT + 1) var<storage, read_write> quant_groups: array<vec2<f32>>; // [rows, EMIT_COLS / 32]: s, s · sum

// Eight neighbouring invocations have a group. Call in uniform control flow with `four` = local modulo 8; columns past
// the end are not written.
fn emit(row: u32, four: u32, values: vec4<f32>, local: u32) {
    let magnitudes = abs(values);
    var largest = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    largest = max(largest, subgroupShuffleXor(largest, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    largest = max(largest, subgroupShuffleXor(largest, 4u));
    let scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    let q = clamp(vec4<i32>(round(values * inverse)), vec4<i32>(-127), vec4<i32>(127));
    var sum = q.x + q.y + q.z + q.w;
    sum += subgroupShuffleXor(sum, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    sum += subgroupShuffleXor(sum, 4u);
    if four < EMIT_COLS / 4u {
        quants[row * (EMIT_COLS / 4u) + four] = pack4xI8(q);
        if local % 8u == 0u {
            quant_groups[row * (EMIT_COLS / 32u) + four / 8u] = vec2<f32>(scale, scale * f32(sum));
        }
    }
}
