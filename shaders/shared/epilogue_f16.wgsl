//! needs: constants BLOCK_COLS, EPILOGUE, EPILOGUE_COLS, M_STRIDE; enables f16

// Writes results as matmul_coop reads them: f16, with blocks of BLOCK_COLS columns outermost.
// So a tile of rows is contiguous.
// The order in four columns is 0, 2, 1, 3, the order in which the weights' nibbles are unpacked.

// [EPILOGUE_COLS / BLOCK_COLS, M_STRIDE, BLOCK_COLS / 4]
@group(0) @binding(EPILOGUE) var<storage, read_write> halves: array<vec4<f16>>;

const BLOCK_VEC4S: u32 = BLOCK_COLS / 4u;

fn epilogue(row: u32, i4: u32, values: vec4<f32>, local: u32) {
    if i4 < EPILOGUE_COLS / 4u {
        let held = clamp(values, vec4<f32>(-65504.0), vec4<f32>(65504.0));
        halves[(i4 / BLOCK_VEC4S * M_STRIDE + row) * BLOCK_VEC4S + i4 % BLOCK_VEC4S] =
            vec4<f16>(held.xzyw);
    }
}
