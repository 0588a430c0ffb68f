//! needs: constants EPILOGUE, EPILOGUE_COLS

// Writes results as [rows, EPILOGUE_COLS] f32.

// [rows, EPILOGUE_COLS / 4]
@group(0) @binding(EPILOGUE) var<storage, read_write> out: array<vec4<f32>>;

fn epilogue(row: u32, i4: u32, values: vec4<f32>, local: u32) {
    if i4 < EPILOGUE_COLS / 4u {
        out[row * (EPILOGUE_COLS / 4u) + i4] = values;
    }
}
