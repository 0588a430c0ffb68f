//! needs: q8_subgroup; constants EPILOGUE, EPILOGUE_COLS

// Writes results as int8 in groups of 32 values, see q8_subgroup.wgsl.

// [rows, EPILOGUE_COLS / 4], four int8 a word
@group(0) @binding(EPILOGUE) var<storage, read_write> quants: array<u32>;
// [rows, EPILOGUE_COLS / 32]: s, s · sum
@group(0) @binding(EPILOGUE + 1) var<storage, read_write> quant_groups: array<vec2<f32>>;

// Eight neighbouring invocations share a group. Call in uniform control flow.
// `i4` must equal `local` modulo 8. Columns past the end are not written.
fn epilogue(row: u32, i4: u32, values: vec4<f32>, local: u32) {
    let q8 = quantize_vec4(values);
    if i4 < EPILOGUE_COLS / 4u {
        quants[row * (EPILOGUE_COLS / 4u) + i4] = q8.word;
        if local % 8u == 0u {
            quant_groups[row * (EPILOGUE_COLS / 32u) + i4 / 8u] = q8.group;
        }
    }
}
