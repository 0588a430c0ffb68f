//! needs: constants EPILOGUE, EPILOGUE_COLS, M_STRIDE; enables f16

// Writes results as matmul_coop reads them: f16, with blocks of 32 columns outermost.
// So a tile of rows is contiguous.
// The order in four columns is 0, 2, 1, 3, the order in which the weights' nibbles are unpacked.

// [EPILOGUE_COLS / 32, M_STRIDE, 8]
@group(0) @binding(EPILOGUE) var<storage, read_write> halves: array<vec4<f16>>;

fn epilogue(row: u32, i4: u32, values: vec4<f32>, local: u32) {
    if i4 < EPILOGUE_COLS / 4u {
        let held = clamp(values, vec4<f32>(-65504.0), vec4<f32>(65504.0));
        halves[((i4 / 8u) * M_STRIDE + row) * 8u + i4 % 8u] = vec4<f16>(held.xzyw);
    }
}
