//! needs: constants EPILOGUE, EPILOGUE_COLS, WORKGROUP

// Writes results as int8: each group of 32 values becomes round(x / s) with s = max|x| / 127.

// [rows, EPILOGUE_COLS / 4], four int8 a word
@group(0) @binding(EPILOGUE) var<storage, read_write> quants: array<u32>;
// [rows, EPILOGUE_COLS / 32]: s, s · sum
@group(0) @binding(EPILOGUE + 1) var<storage, read_write> quant_groups: array<vec2<f32>>;

var<workgroup> epilogue_maxima: array<f32, WORKGROUP>;
var<workgroup> epilogue_sums: array<i32, WORKGROUP>;

// Eight neighbouring invocations share a group. Call in uniform control flow.
// `i4` must equal `local` modulo 8. Columns past the end are not written.
fn epilogue(row: u32, i4: u32, values: vec4<f32>, local: u32) {
    let magnitudes = abs(values);
    epilogue_maxima[local] = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    workgroupBarrier();
    let first = local - local % 8u;
    var largest = 0.0;
    for (var i = 0u; i < 8u; i++) {
        largest = max(largest, epilogue_maxima[first + i]);
    }
    let scale = largest / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    let q = clamp(vec4<i32>(round(values * inverse)), vec4<i32>(-127), vec4<i32>(127));
    epilogue_sums[local] = q.x + q.y + q.z + q.w;
    workgroupBarrier();
    if i4 >= EPILOGUE_COLS / 4u {
        return;
    }
    quants[row * (EPILOGUE_COLS / 4u) + i4] = pack4xI8(q);
    if local == first {
        var sum = 0;
        for (var i = 0u; i < 8u; i++) {
            sum += epilogue_sums[first + i];
        }
        quant_groups[row * (EPILOGUE_COLS / 32u) + i4 / 8u] = vec2<f32>(scale, scale * f32(sum));
    }
}
