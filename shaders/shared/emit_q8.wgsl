//! needs: constants EMIT, EMIT_COLS, WORKGROUP
// Results as int8: each group of 32 values becomes round(x / s) with s = max|x| / 127.

@group(0) @binding(EMIT) var<storage, read_write> quants: array<u32>;             // [rows, EMIT_COLS / 4], four int8 a word
@group(0) @binding(EMIT + 1) var<storage, read_write> quant_groups: array<vec2<f32>>; // [rows, EMIT_COLS / 32]: s, s · sum

var<workgroup> emit_maxima: array<f32, WORKGROUP>;
var<workgroup> emit_sums: array<i32, WORKGROUP>;

// Eight neighbouring invocations have a group. Call in uniform control flow with `four` = local
// modulo 8; columns past the end are not written.
fn emit(row: u32, four: u32, values: vec4<f32>, local: u32) {
    let magnitudes = abs(values);
    emit_maxima[local] = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    workgroupBarrier();
    let first = local - local % 8u;
    var largest = 0.0;
    for (var i = 0u; i < 8u; i++) {
        largest = max(largest, emit_maxima[first + i]);
    }
    let scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    let q = clamp(vec4<i32>(round(values * inverse)), vec4<i32>(-127), vec4<i32>(127));
    emit_sums[local] = q.x + q.y + q.z + q.w;
    workgroupBarrier();
    if four >= EMIT_COLS / 4u {
        return;
    }
    quants[row * (EMIT_COLS / 4u) + four] = pack4xI8(q);
    if local == first {
        var sum = 0;
        for (var i = 0u; i < 8u; i++) {
            sum += emit_sums[first + i];
        }
        quant_groups[row * (EMIT_COLS / 32u) + four / 8u] = vec2<f32>(scale, scale * f32(sum));
    }
}
